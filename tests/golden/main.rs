//! Golden vectors: results of the official SOFT code, in f64 on the CPU. README.md here says how they
//! were made and how to compare with all of them.

mod reference;
mod run;
mod vectors;

use reference::{Batch, BatchWide, exact_gradient, residuals};
use run::{Session, append_gradient, permuted};
use softedge::model::{
    Config, ConvLayer, Gelu, Inverse, Landmarks, Layers, Local, Mixer, Mode, Norm, Per, Soft, Stage, build, preset,
};
use softedge::ops::DType;
use softedge::ops::adamw::{AdamW, ClipScale};
use softedge::ops::batch_norm::RunningUpdate;
use softedge::ops::inverse::{InverseLdlt, InverseNewton};
use softedge::ops::kernel::KernelApply;
use softedge::program::{Init, Op, Program, Role, Space, TensorId, differentiate};
use std::collections::BTreeMap;
use vectors::{FORWARD, GRADIENT, Golden, input, values};

const STEPS: usize = 20;

/// SOFT, or SOFT++ with `norm`, as the official code has it.
fn soft(norm: bool, ratio: usize, local: usize) -> Soft {
    Soft {
        landmarks: Landmarks::Conv(ratio),
        inverse: Inverse::Newton(STEPS),
        ridge: if norm { 0.0 } else { 0.01 },
        sym_norm: norm,
        mean: false,
        local: Some(Local { kernel: local, per: Per::Head }),
    }
}

fn tag(norm: bool) -> &'static str {
    if norm { "soft_norm" } else { "soft" }
}

/// Layers of a Program without dropout or loss.
fn layers(training: bool) -> Layers {
    let mode = Mode::Infer { batch: 1 };
    Layers::new(if training { Mode::Train { batch: 1, label_smoothing: 0.0 } } else { mode }, None)
}

/// An input whose gradient is wanted.
fn variable(layers: &mut Layers, name: &str, shape: &[usize]) -> TensorId {
    layers.param(name, shape, Init::Zeros, false)
}

#[test]
fn the_formula_gives_the_documented_numbers() {
    let t = |name: &str| values(name, 4, 1.0, 0.0);
    assert_eq!(t("tiny.image"), [0.825_524_45, -0.663_527_25, -0.110_747_576, -0.289_784_67]);
    assert_eq!(t("tiny.head.weight"), [-0.645_732_9, -0.890_674, -0.084_821_46, 0.715_969_1]);
    assert_eq!(t("a"), [-0.256_538_15, 0.996_244_55, 0.984_213, 0.371_881_72]);
}

#[test]
fn attention() {
    for (norm, ratio) in [(false, 2), (false, 4), (true, 2), (true, 4)] {
        let mut golden = Golden::open(&format!("attn_{}_r{ratio}", tag(norm)));
        let prefix = format!("attn.{}.r{ratio}", tag(norm));
        let (n, heads, d, m) = (64, 2, 16, 64 / (ratio * ratio));
        let tokens = |part: &str, f: fn(&str, usize) -> Vec<f32>| {
            permuted(&f(&format!("{prefix}.{part}"), 2 * heads * n * d), [2, heads, n, d], [0, 2, 1, 3])
        };
        let mut layers = layers(true);
        let q = variable(&mut layers, "Q", &[2, 8, 8, heads * d]);
        let v = variable(&mut layers, "V", &[2, 8, 8, heads * d]);
        let out = layers.soft_kernel(&prefix, q, v, heads, 1e-5, &soft(norm, ratio, 3));
        let mut program = layers.program;
        let find = |program: &Program, part: &str| program.find(&format!("{prefix}.{part}")).unwrap();
        let mids = ["landmarks", "gram", "inverse"].map(|part| find(&program, part));
        // The rows of K1 that no op stores: K1 U for the first d columns of the identity.
        let identity: Vec<f32> = (0..4 * m * d).map(|i| f32::from(u8::from(i / d % m == i % d))).collect();
        let u = program.constant_f32("identity", &[4, m, d], &identity);
        let scaled = find(&program, "q");
        let apply = KernelApply { batch: 2, n, m, heads, d };
        let k1 = program.apply("K1", apply, &[Some(scaled), Some(mids[0]), Some(u)], &[2, n, heads * d]);
        let (r, gradients) = append_gradient(&mut program, out);

        let mut session = Session::new(program);
        session.initialise("");
        session.set(q, &tokens("Q", input));
        session.set(v, &tokens("V", input));
        let mut batch_wide = BatchWide::default();
        let cotangent = tokens("R", |name, len| values(name, len, 1.0, 0.0));
        let kept = session.run(&[(r, &cotangent)], &[out, k1, mids[0], mids[1], mids[2]], |record, executor| {
            if norm {
                batch_wide.watch(record, executor);
            }
        });

        let heads_first = |values: &[f32], n: usize| permuted(values, [2, n, heads, d], [0, 2, 1, 3]);
        golden.check("out", &heads_first(&kept[&out], n), FORWARD);
        golden.check("mid.Q_landmarks", &heads_first(&kept[&mids[0]], m), FORWARD);
        golden.check("mid.kernel_2", &kept[&mids[1]], FORWARD);
        golden.check(if norm { "mid.newton_out" } else { "mid.kernel_2_inv" }, &kept[&mids[2]], FORWARD);
        let k1: Vec<f32> = heads_first(&kept[&k1], n).chunks(d).flat_map(|row| &row[..m]).copied().collect();
        golden.check("mid.kernel_1", &k1, FORWARD);
        golden.check("grad.Q", &heads_first(session.get(gradients[&q]), n), GRADIENT);
        golden.check("grad.V", &heads_first(session.get(gradients[&v]), n), GRADIENT);
        for (name, (_, gradient)) in session.checkpoint(Space::Grads) {
            if let Some(key) = name.strip_prefix(&format!("{prefix}.")) {
                golden.check(&format!("grad.{key}"), &gradient, GRADIENT);
            }
        }
        golden.finish();
    }
}

#[test]
fn block() {
    for norm in [false, true] {
        let mut golden = Golden::open(&format!("block_{}", tag(norm)));
        let prefix = format!("block.{}", tag(norm));
        let stage = Stage {
            embed: vec![ConvLayer { channels: 32, kernel: 1, stride: 1, batch_norm: false, relu: false }],
            depth: 1,
            heads: 2,
            mixer: Mixer::Soft(soft(norm, 2, 3)),
            mlp_ratio: 4.0,
            norm: Norm::Post,
            gelu: Gelu::Tanh,
            layer_norm_eps: 1e-5,
            position: None,
            drop: Default::default(),
        };
        let mut layers = layers(true);
        let x = variable(&mut layers, "X", &[2, 8, 8, 32]);
        let out = layers.block(&prefix, &stage, x, 0.0);
        let mut program = layers.program;
        let (r, gradients) = append_gradient(&mut program, out);

        let mut session = Session::new(program);
        session.initialise("");
        session.set(x, &input(&format!("{prefix}.X"), 4096));
        let mut batch_wide = BatchWide::default();
        let cotangent = values(&format!("{prefix}.R"), 4096, 1.0, 0.0);
        let kept = session.run(&[(r, &cotangent)], &[out], |record, executor| {
            if norm {
                batch_wide.watch(record, executor);
            }
        });
        golden.check("out", &kept[&out], FORWARD);
        golden.check("grad.X", session.get(gradients[&x]), GRADIENT);
        for (name, (_, gradient)) in session.checkpoint(Space::Grads) {
            if let Some(key) = name.strip_prefix(&format!("{prefix}.")) {
                golden.check(&format!("grad.{key}"), &gradient, GRADIENT);
            }
        }
        golden.finish();
    }
}

/// Appends the averaging of running statistics, as a training step does.
fn append_running_update(program: &mut Program) {
    let statistics = softedge::program::ParamLayout::new(program).statistics;
    let len = statistics.len() / 4;
    let window = |space| Role::Window { space, offset: statistics.start };
    let batch = program.add("batch statistics", DType::F32, &[len], window(Space::Grads));
    let running = program.add("running statistics", DType::F32, &[len], window(Space::Params));
    program.push(RunningUpdate { len, momentum: 0.1 }, &[Some(batch)], &[Some(running)]);
}

#[test]
fn patch_embedding() {
    let conv = |channels, stride| ConvLayer { channels, kernel: 3, stride, batch_norm: true, relu: true };
    let stem = vec![conv(32, 2), conv(32, 1), conv(16, 2)];
    for (kind, embed, side, c) in [("stem", stem, 32, 3), ("down", vec![conv(16, 2)], 16, 16)] {
        let mut golden = Golden::open(&format!("patch_embed_{kind}"));
        let prefix = format!("patch.{kind}");
        for (run, training) in [("eval", false), ("train", true)] {
            let mut layers = layers(training);
            let x = variable(&mut layers, "x", &[2, side, side, c]);
            let out = layers.embed(&format!("{prefix}.proj"), &embed, x);
            let mut program = layers.program;
            let (r, gradients) = append_gradient(&mut program, out);
            if training {
                append_running_update(&mut program);
            }
            let mut session = Session::new(program);
            session.initialise("");
            let image = input(&format!("{prefix}.x"), 2 * c * side * side);
            session.set(x, &permuted(&image, [2, c, side, side], [0, 2, 3, 1]));
            let cotangent = values(&format!("{prefix}.R"), 2 * 64 * 16, 1.0, 0.0);
            let kept = session.run(&[(r, &cotangent)], &[out], |_, _| {});
            golden.check(&format!("{run}.out"), &kept[&out], FORWARD);
            let dx = permuted(session.get(gradients[&x]), [2, side, side, c], [0, 3, 1, 2]);
            golden.check(&format!("{run}.grad.x"), &dx, GRADIENT);
            let gradients = session.checkpoint(Space::Grads);
            for (name, (_, gradient)) in &gradients {
                let Some(key) = name.strip_prefix(&format!("{prefix}.")).filter(|k| !k.contains("running")) else {
                    continue;
                };
                check_gradient(&mut golden, &format!("{run}.grad."), key, gradient, training);
            }
            if training {
                for (name, (_, statistic)) in session.checkpoint(Space::Params) {
                    if let Some(key) = name.strip_prefix(&format!("{prefix}.")).filter(|k| k.contains("running")) {
                        golden.check(&format!("train.after.{key}"), &statistic, FORWARD);
                    }
                }
            }
        }
        golden.finish();
    }
}

/// Compares the gradient of the parameter `key`. That of a convolution's bias before a batch
/// normalisation is zero and all rounding: its measure is the gradient of the weights, which are sums
/// of as many terms.
fn check_gradient(golden: &mut Golden, prefix: &str, key: &str, gradient: &[f32], training: bool) {
    let name = format!("{prefix}{key}");
    if training && is_noise(key) {
        let weights = golden.wanted(&format!("{prefix}{}.weight", key.strip_suffix(".bias").unwrap())).largest;
        golden.check_each(&name, gradient, |_| Some(FORWARD * weights));
    } else {
        golden.check(&name, gradient, GRADIENT);
    }
}

/// Whether `key` is the bias of a convolution that a batch normalisation follows.
fn is_noise(key: &str) -> bool {
    ["proj.0.bias", "proj.3.bias", "proj.6.bias"].iter().any(|bias| key.ends_with(bias))
}

/// Inverts `p`: the inverse and, for the cotangent `g`, the gradient.
fn invert(op: impl Into<Op>, count: usize, m: usize, p: &[f32], g: &[f32]) -> [Vec<f32>; 2] {
    let mut program = Program::new();
    let input = program.add("P", DType::F32, &[count, m, m], Role::Param { decay: false });
    let v = program.apply("V", op, &[Some(input)], &[count, m, m]);
    let (r, gradients) = append_gradient(&mut program, v);
    let mut session = Session::new(program);
    session.set(input, p);
    let mut kept = session.run(&[(r, g)], &[v], |_, _| {});
    [kept.remove(&v).unwrap(), session.get(gradients[&input]).to_vec()]
}

fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn inverses() {
    let mut golden = Golden::open("newton_inv");
    let cases = [4, 16, 49].into_iter().flat_map(|m| ["well", "mid", "bad"].map(|c| (format!("m{m}.{c}"), 1, m)));
    for (case, count, m) in cases.chain([("multi16".into(), 4, 16)]) {
        let (p, g) = (golden.stored(&format!("{case}.P")).to_vec(), golden.stored(&format!("{case}.G")).to_vec());
        let batch = Batch::new(m, &p);
        let name = |part: &str| format!("{case}.{part}");

        // Newton's iteration with a ridge, step by step.
        let (mut regular, mut plain) = (vec![0.0; count * (STEPS + 1)], vec![0.0; count * (STEPS + 1)]);
        for iterations in 0..=STEPS {
            let op = InverseNewton { count, m, iterations, ridge: 0.01 };
            let [v, gradient] = invert(op, count, m, &p, &g);
            for (ridge, curve) in [(0.01, &mut regular), (0.0, &mut plain)] {
                for (i, residual) in residuals(&batch, ridge, &f64s(&v)).into_iter().enumerate() {
                    curve[i * (STEPS + 1) + iterations] = residual as f32;
                }
            }
            if iterations == STEPS {
                golden.check(&name("soft.V"), &v, FORWARD);
                golden.check(&name("soft.gradP_official"), &gradient, GRADIENT);
            }
        }
        golden.check(&name("soft.err_reg"), &regular, FORWARD);
        golden.check(&name("soft.err_unreg"), &plain, FORWARD);

        // The reference for SOFT-Norm.
        let iterates = batch.iterates(STEPS);
        let last: Vec<f64> = iterates.iter().flat_map(|all| all[STEPS].clone()).collect();
        golden.check(&name("norm.V"), &f32s(&last), FORWARD);
        golden.check(&name("norm.gradP"), &f32s(&batch.gradient(STEPS, &f64s(&g))), FORWARD);
        let mut curve = vec![0.0; count * (STEPS + 1)];
        for k in 0..=STEPS {
            let v: Vec<f64> = iterates.iter().flat_map(|all| all[k].clone()).collect();
            for (i, residual) in residuals(&batch, 0.0, &v).into_iter().enumerate() {
                curve[i * (STEPS + 1) + k] = residual as f32;
            }
        }
        golden.check(&name("norm.err"), &curve, FORWARD);

        // The direct inverse against the exact one, and its gradient, which is that of an exact inverse.
        let [v, gradient] = invert(InverseLdlt { count, m, ridge: 0.01 }, count, m, &p, &g);
        let (exact, condition) = batch.exact_inverse(0.01);
        let allowed = 4.0 * condition * f64::from(f32::EPSILON);
        for (what, got, want) in
            [("direct inverse", &v[..], &exact), ("its gradient", &gradient, &exact_gradient(m, &exact, &f64s(&g)))]
        {
            let largest = want.iter().fold(0.0f64, |a, v| a.max(v.abs()));
            let error = got.iter().zip(want).fold(0.0f64, |a, (&g, w)| a.max((f64::from(g) - w).abs())) / largest;
            println!("{case} {what}: {error:.2e}, condition number {condition:.0}");
            assert!(error <= allowed, "{case}: the {what} is off by {error:.2e} of its largest, {allowed:.2e} allowed");
        }
    }
    golden.finish();
}

/// The small model of the official architecture.
fn small(norm: bool) -> Config {
    let mut config = preset(if norm { "soft_norm_tiny" } else { "soft_tiny" }).unwrap();
    (config.input.height, config.input.width) = (64, 64);
    (config.classes, config.drop_rate) = (10, 0.0);
    config.input.mean.clear();
    config.input.std.clear();
    for (stage, (channels, heads)) in config.stages.iter_mut().zip([(16, 1), (32, 2), (40, 2), (64, 4)]) {
        (stage.depth, stage.heads) = (1, heads);
        stage.embed.last_mut().unwrap().channels = channels;
    }
    config
}

#[test]
fn small_model() {
    for norm in [false, true] {
        let mut golden = Golden::open(&format!("small_{}", tag(norm)));
        let prefix = format!("small.{}.", tag(norm));
        let image = permuted(&input("small.image", 2 * 3 * 64 * 64), [2, 3, 64, 64], [0, 2, 3, 1]);

        let built = build(&small(norm), Mode::Infer { batch: 2 }).unwrap();
        let mut session = Session::new(built.program);
        session.initialise(&prefix);
        let mut batch_wide = BatchWide::default();
        let kept = session.run(&[(built.input, &image)], &[built.logits], |record, executor| {
            if norm {
                batch_wide.watch(record, executor);
            }
        });
        golden.check("eval.logits", &kept[&built.logits], FORWARD);

        let step = TrainingStep::new(&small(norm));
        let mut session = Session::new(step.program);
        session.initialise(&prefix);
        let mut target = vec![0.0; 20];
        (target[3], target[10 + 7]) = (1.0, 1.0);
        let hyper = AdamW { len: 0, beta1: BETA1, beta2: BETA2, eps: EPS, decay: 0.0 }.hyper(LR, 0, 0.0);
        let inputs = [(step.input, &image[..]), (step.target, &target), (step.hyper, &hyper), (step.scale, &[1.0])];
        let mut batch_wide = BatchWide::default();
        let kept = session.run(&inputs, &[step.logits, step.loss, step.norm], |record, executor| {
            if norm {
                batch_wide.watch(record, executor);
            }
        });
        golden.check("train.logits", &kept[&step.logits], FORWARD);
        golden.check("train.loss", &kept[&step.loss], FORWARD);
        golden.check("grad_norm", &kept[&step.norm], GRADIENT);
        for (name, (_, gradient)) in session.checkpoint(Space::Grads) {
            if !name.contains("running") {
                check_gradient(&mut golden, "grad.", &name, &gradient, true);
            }
        }
        for (name, (_, value)) in session.checkpoint(Space::Params) {
            if name.contains("running") {
                golden.check(&format!("after.{name}"), &value, FORWARD);
            } else if is_noise(&name) {
                golden.skip(&format!("adamw.{name}"));
            } else {
                // The first step moves by lr g / (|g| + eps), which is the sign of all but the smallest
                // gradients, and magnifies the error of those.
                let (gradient, wanted) =
                    (golden.wanted(&format!("grad.{name}")), golden.wanted(&format!("adamw.{name}")));
                let (lr, eps, error) = (f64::from(LR), f64::from(EPS), 4.0 * gradient.gap);
                // Positions of the embedding that the small image does not sample have no gradient.
                let unused = |g: f64| g == 0.0 && name.starts_with("pos_embed");
                let allowed: Vec<Option<f64>> = gradient
                    .sample
                    .iter()
                    .map(|&g| {
                        let magnified = lr * eps / (g.abs() + eps).powi(2) * error;
                        (unused(g) || g.abs() > error.max(1e-6)).then_some(FORWARD * wanted.largest + magnified)
                    })
                    .collect();
                golden.check_each(&format!("adamw.{name}"), &value, |k| allowed[k]);
            }
        }
        golden.finish();
    }
}

const LR: f32 = 1e-3;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;

/// Forward, loss, backward, running statistics and optimizer in one Program.
struct TrainingStep {
    program: Program,
    input: TensorId,
    target: TensorId,
    hyper: TensorId,
    scale: TensorId,
    logits: TensorId,
    loss: TensorId,
    norm: TensorId,
}

impl TrainingStep {
    fn new(config: &Config) -> Self {
        let built = build(config, Mode::Train { batch: 2, label_smoothing: 0.0 }).unwrap();
        let (mut program, loss) = (built.program, built.loss.unwrap());
        differentiate(&mut program, loss);
        append_running_update(&mut program);
        let layout = softedge::program::ParamLayout::new(&program);
        let all = (layout.plain.end - layout.decayed.start) / 4;
        let gradients = program.add("gradients", DType::F32, &[all], Role::Window { space: Space::Grads, offset: 0 });
        let clip = ClipScale { len: all, max_norm: 0.0 };
        let norm = program.add("norm", DType::F32, &[1], Role::Activation);
        let factor = program.add("factor", DType::F32, &[1], Role::Activation);
        program.push(clip, &[Some(gradients)], &[Some(factor), Some(norm)]);
        let hyper = program.add("hyper", DType::F32, &[4], Role::Activation);
        let scale = program.add("scale", DType::F32, &[1], Role::Activation);
        for (range, decay) in [(layout.decayed, 0.05), (layout.plain, 0.0)] {
            let len = range.len() / 4;
            let window = |space| Role::Window { space, offset: range.start };
            let g = program.add("g", DType::F32, &[len], window(Space::Grads));
            let p = program.add("p", DType::F32, &[len], window(Space::Params));
            let [m, v] = ["m", "v"].map(|name| program.add(name, DType::F32, &[len], Role::State));
            let op = AdamW { len, beta1: BETA1, beta2: BETA2, eps: EPS, decay };
            program.push(op, &[Some(g), Some(hyper), Some(scale)], &[Some(p), Some(m), Some(v)]);
        }
        let (input, target) = (built.input, built.target.unwrap());
        program.inputs = vec![input, target, hyper, scale];
        program.outputs = vec![loss, built.logits, norm];
        Self { program, input, target, hyper, scale, logits: built.logits, loss, norm }
    }
}

#[test]
fn adamw() {
    let mut golden = Golden::open("adamw_unit");
    for (decay, name) in [(0.0, "wd0.0"), (0.05, "wd0.05")] {
        let mut program = Program::new();
        let p = program.add("p", DType::F32, &[64], Role::Param { decay: true });
        let [g, hyper, scale] = [("g", 64), ("hyper", 4), ("scale", 1)]
            .map(|(name, len)| program.add(name, DType::F32, &[len], Role::Activation));
        let [m, v] = ["m", "v"].map(|name| program.add(name, DType::F32, &[64], Role::State));
        let op = AdamW { len: 64, beta1: BETA1, beta2: BETA2, eps: EPS, decay };
        program.push(op, &[Some(g), Some(hyper), Some(scale)], &[Some(p), Some(m), Some(v)]);
        program.inputs = vec![g, hyper, scale];
        program.outputs = vec![p];
        let mut session = Session::new(program);
        session.set(p, &values("adamw.p0", 64, 1.0, 0.0));
        for step in 0..5 {
            let gradient = values(&format!("adamw.g{}", step + 1), 64, 0.1, 0.0);
            session.run(&[(g, &gradient), (hyper, &op.hyper(LR, step, 0.0)), (scale, &[1.0])], &[], |_, _| {});
            golden.check(&format!("{name}.p{}", step + 1), session.get(p), FORWARD);
        }
    }
    golden.finish();
}

#[test]
fn tiny_at_224() {
    for norm in [false, true] {
        let (file, name) = if norm { ("soft_norm_tiny_224", "soft_norm_tiny") } else { ("soft_tiny_224", "soft_tiny") };
        let mut golden = Golden::open(file);
        let mut config = preset(name).unwrap();
        config.input.mean.clear();
        config.input.std.clear();
        let built = build(&config, Mode::Infer { batch: 1 }).unwrap();
        let parts: BTreeMap<TensorId, &str> = [
            ("patch_embed1.proj.8", "patch_embed1"),
            ("patch_embed2.proj.2", "patch_embed2"),
            ("patch_embed3.proj.2", "patch_embed3"),
            ("patch_embed4.proj.2", "patch_embed4"),
            ("block1.0.att.norm2", "stage1"),
            ("block2.1.att.norm2", "stage2"),
            ("block3.2.att.norm2", "stage3"),
            ("block4.1.norm2.sum", "stage4"),
            ("norm", "norm"),
        ]
        .map(|(tensor, part)| (built.program.find(tensor).unwrap(), part))
        .into();
        let keep: Vec<TensorId> = parts.keys().copied().chain([built.logits]).collect();
        let mut session = Session::new(built.program);
        session.initialise("tiny.");
        let image = permuted(&input("tiny.image", 3 * 224 * 224), [1, 3, 224, 224], [0, 2, 3, 1]);
        let mut batch_wide = BatchWide::default();
        let kept = session.run(&[(built.input, &image)], &keep, |record, executor| {
            if norm {
                batch_wide.watch(record, executor);
            }
        });
        golden.check("logits", &kept[&built.logits], FORWARD);
        for (id, part) in parts {
            let got = &kept[&id];
            let mean = |f: fn(f64) -> f64| got.iter().map(|&v| f(f64::from(v))).sum::<f64>() / got.len() as f64;
            golden.check(&format!("{part}.stats"), &f32s(&[mean(|v| v), mean(f64::abs)]), FORWARD);
            golden.check(&format!("{part}.first8"), &got[..8], FORWARD);
            golden.check(&format!("{part}.last8"), &got[got.len() - 8..], FORWARD);
        }
        golden.finish();
    }
}

/// Makes the committed files from the full ones.
#[test]
#[ignore = "rewrites the committed results: needs SOFTEDGE_GOLDEN"]
fn commit() {
    for (file, most) in [
        ("attn_soft_r2", 1024),
        ("attn_soft_r4", 1024),
        ("attn_soft_norm_r2", 1024),
        ("attn_soft_norm_r4", 1024),
        ("newton_inv", 4096),
        ("block_soft", 1024),
        ("block_soft_norm", 1024),
        ("patch_embed_stem", 1024),
        ("patch_embed_down", 1024),
        ("small_soft", 64),
        ("small_soft_norm", 64),
        ("adamw_unit", 64),
        ("soft_tiny_224", 1000),
        ("soft_norm_tiny_224", 1000),
    ] {
        Golden::read_full(file, most).commit();
    }
}
