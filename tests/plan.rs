//! The arena plan of real models: small, sound, and trusted by kernels that read nothing but what was
//! written for them.
#![cfg(feature = "alloc")]

use softedge::engine::{Buffer, Every, Executor, Memory, elements_mut};
use softedge::format::{View, write};
use softedge::math::random::Stream;
use softedge::model::{Built, Drop, Head, Inverse, Landmarks, Local, Mixer, Mode, PRESETS, Per, Soft, build, preset};
use softedge::ops::Tick;
use softedge::program::{Init, ParamLayout, Plan, Program, Role, Space, TensorId, differentiate, verify};

fn training(built: Built) -> Built {
    let mut built = built;
    differentiate(&mut built.program, built.loss.expect("built for training"));
    built
}

const INFER: Mode = Mode::Infer { batch: 1 };
const TRAIN: Mode = Mode::Train { batch: 4, label_smoothing: 0.1 };

/// Verifies the plan of a Program and asserts that it is within 10% of the lower bound.
fn assert_tight(what: &str, program: &Program) {
    let plan = Plan::new(program);
    assert_eq!(verify(program, &plan), Ok(()), "{what}");
    let (peak, bound) = (plan.size(Space::Arena), plan.lower_bound());
    println!("{what}: {peak} bytes, {:.2}% above the bound", 100.0 * (peak as f64 / bound as f64 - 1.0));
    assert!(peak >= bound && peak as f64 <= 1.1 * bound as f64, "{what}: {peak} bytes for a bound of {bound}");
}

#[test]
fn every_model_is_planned_within_a_tenth_of_the_bound() {
    for name in PRESETS {
        let config = preset(name).unwrap();
        assert_tight(name, &build(&config, INFER).unwrap().program);
        let built = build(&config, Mode::Train { batch: 1, label_smoothing: 0.0 }).unwrap();
        assert_tight(&format!("{name}, training"), &training(built).program);
    }
}

/// Parameters as training starts with them, but random where those are all equal.
fn initialise(program: &Program, params: &mut [f32]) {
    let (layout, random) = (ParamLayout::new(program), Stream::new(1));
    for (i, t) in program.tensors.iter().enumerate() {
        if !matches!(t.role, Role::Param { .. } | Role::Statistic) {
            continue;
        }
        let (scale, offset) = match t.init {
            Init::Zeros => (0.1, 0.0),
            Init::Ones => (0.1, 1.0),
            Init::TruncatedNormal(std) => (2.0 * std, 0.0),
        };
        let at = layout.offset(TensorId(i as u16)) / 4;
        for (k, p) in params[at..][..t.len()].iter_mut().enumerate() {
            *p = offset + scale * (2.0 * random.fork(i as u64).uniform(k as u64) - 1.0);
        }
    }
}

/// What a run leaves: its outputs and the gradients.
fn run(built: &Built, poison: Option<[u8; 4]>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let program = &built.program;
    let plan = Plan::new(program);
    verify(program, &plan).unwrap();
    let file = Buffer::copy_of(&write(program, &plan).unwrap());
    let view = View::new_checked(file.bytes()).unwrap();
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut params = Buffer::zeroed(view.size(Space::Params));
    let mut grads = Buffer::zeroed(view.size(Space::Grads));
    initialise(program, params.elements_mut());
    if let Some(poison) = poison {
        arena.bytes_mut().chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&poison));
    }
    let memory =
        Memory::new(arena.bytes_mut()).with_shared(Space::Params, params.bytes()).with(Space::Grads, grads.bytes_mut());
    let mut executor = Executor::<Every>::new(view, memory).unwrap();

    let random = Stream::new(2);
    let raw: &mut [f32] = elements_mut(executor.tensor_mut(built.input.index()).unwrap());
    raw.iter_mut().enumerate().for_each(|(i, v)| *v = 255.0 * random.uniform(i as u64));
    if let Some(target) = built.target {
        let classes = program.tensor(target).shape[1];
        let target: &mut [f32] = elements_mut(executor.tensor_mut(target.index()).unwrap());
        target.iter_mut().enumerate().for_each(|(i, t)| *t = f32::from(u8::from(i / classes % classes == i % classes)));
    }
    let tick = Tick { seed: 3, step: 5, shard: 1 };
    executor.run_watched(0..view.n_ops(), &tick, |op, _, executor| {
        if let Some(poison) = poison {
            spoil_the_dead(program, &plan, op, executor, poison);
        }
        true
    });
    let outputs = program.outputs.iter().map(|id| executor.tensor(id.index()).to_vec()).collect();
    (outputs, grads.bytes().to_vec())
}

/// Overwrites every byte of the arena that holds nothing alive after `op`.
fn spoil_the_dead(program: &Program, plan: &Plan, op: usize, executor: &mut Executor<'_>, poison: [u8; 4]) {
    // Op `i` is moment `i + 1` of a lifetime.
    let alive = |id: TensorId| plan.lifetime(id).is_some_and(|life| life.start <= op + 1 && life.end > op + 2);
    let ids = || (0..program.tensors.len()).map(|i| TensorId(i as u16)).filter(|id| plan.lifetime(*id).is_some());
    let mut words = vec![false; plan.size(Space::Arena) / 4];
    for id in ids().filter(|id| alive(*id)) {
        words[plan.offset(id) / 4..][..program.tensor(id).len()].fill(true);
    }
    for id in ids().filter(|id| !alive(*id)) {
        let at = plan.offset(id) / 4;
        let bytes = executor.tensor_mut(id.index()).unwrap();
        for (bytes, _) in bytes.chunks_exact_mut(4).zip(&words[at..]).filter(|(_, alive)| !**alive) {
            bytes.copy_from_slice(&poison);
        }
    }
}

/// Small models that together have every kind of layer.
fn models() -> Vec<(String, Built, Built)> {
    let mut configs: Vec<_> = ["fashion-nano", "fashion-nano-softmax", "fashion-nano-depthwise", "watch-nano"]
        .into_iter()
        .map(|name| preset(name).unwrap())
        .collect();
    configs.iter_mut().for_each(|config| config.drop_rate = 0.2);
    let mut official = preset("soft_norm_tiny").unwrap();
    official.name = "official".into();
    (official.input.height, official.input.width) = (64, 64);
    for (stage, heads) in official.stages.iter_mut().zip([1, 1, 2, 2]) {
        stage.embed.last_mut().unwrap().channels = 8 * heads;
        (stage.heads, stage.depth) = (heads, 1);
    }
    assert_eq!((official.head, official.stages[0].drop), (Head::ClassToken, Drop::Elements));
    configs.push(official);
    let mut newton = preset("watch-nano").unwrap();
    newton.name = "newton".into();
    newton.stages[0].mixer = Mixer::Soft(Soft {
        landmarks: Landmarks::Conv(8),
        inverse: Inverse::Newton(6),
        ridge: 0.01,
        sym_norm: true,
        mean: true,
        local: Some(Local { kernel: 5, per: Per::Head }),
    });
    configs.push(newton);
    configs
        .into_iter()
        .map(|config| {
            let [infer, train] = [Mode::Infer { batch: 2 }, TRAIN].map(|mode| build(&config, mode).unwrap());
            (config.name, infer, training(train))
        })
        .collect()
}

#[test]
fn no_kernel_reads_what_was_not_written_for_it() {
    let not_a_number = f32::NAN.to_le_bytes();
    for (name, infer, train) in models() {
        for (what, built) in [("inference", infer), ("training", train)] {
            let clean = run(&built, None);
            let scores =
                |output: &[u8]| output.chunks_exact(4).all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite());
            assert!(clean.0.iter().all(|output| scores(output)) && scores(&clean.1), "{name}, {what}");
            for poison in [not_a_number, [0xaa; 4]] {
                assert!(
                    run(&built, Some(poison)) == clean,
                    "{name}, {what}: the arena's old contents {poison:x?} show"
                );
            }
        }
    }
}
