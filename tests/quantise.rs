//! From a model to integers: freeze, calibrate, rewrite, report, run.
#![cfg(all(feature = "quant", feature = "data"))]

use softedge::data;
use softedge::engine::{Buffer, Executor, Memory, elements, elements_mut};
use softedge::format::{View, write};
use softedge::math::random::Stream;
use softedge::model::{Mode, build, preset};
use softedge::ops::{DType, Tick};
use softedge::program::{Init, Plan, Program, Space, verify};
use softedge::quant::{Bounds, calibrate, freeze, quantise, report};
use std::collections::HashMap;

/// Parameters as before training, with norms and statistics shaken so that folding them matters.
fn parameters(program: &Program) -> HashMap<String, Vec<f32>> {
    let mut values = HashMap::new();
    for (i, t) in program.tensors.iter().enumerate().filter(|(_, t)| t.space() == Space::Params) {
        let random = Stream::new(7).fork(i as u64);
        let noise = |k: usize| random.uniform(k as u64) * 2.0 - 1.0;
        let value = (0..t.len()).map(|k| match t.init {
            Init::Zeros => 0.1 * noise(k),
            Init::Ones => 1.0 + 0.3 * noise(k),
            Init::TruncatedNormal(std) => 1.7 * std * noise(k),
        });
        values.insert(t.name.clone(), value.collect());
    }
    values
}

fn run_f32(program: &Program, raw: &[f32]) -> Vec<f32> {
    let file = Buffer::copy_of(&write(program, &Plan::new(program)));
    let view = View::new_checked(file.bytes()).unwrap();
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut())).unwrap();
    elements_mut(executor.tensor_mut(view.input_id(0)).unwrap()).copy_from_slice(raw);
    executor.run(&Tick::default());
    elements(executor.tensor(view.output_id(0))).to_vec()
}

#[test]
fn every_small_preset_becomes_integers_that_follow_it() {
    for name in softedge::model::PRESETS.iter().filter(|name| !name.starts_with("soft_")) {
        let config = preset(name).unwrap();
        let built = build(&config, Mode::Infer { batch: 1 }).unwrap();
        let values = parameters(&built.program);
        let frozen = freeze(&built.program, |name| values.get(name).map(Vec::as_slice)).unwrap();
        let (train, _) =
            data::open(if name.starts_with("watch") { "watch" } else { "fashion-mini" }, &Default::default()).unwrap();
        let fill = |i: usize, raw: &mut [f32]| train.sample_f32(i * 37 % train.len(), raw);
        let calibration = calibrate(&frozen, 32, fill, Bounds::MinMax).unwrap();
        let raw_type = if name.starts_with("watch") { DType::I16 } else { DType::U8 };
        let integer = quantise(&frozen, &calibration, raw_type).unwrap();
        let plan = Plan::new(&integer);
        assert_eq!(verify(&integer, &plan), Ok(()), "{name}");
        let bytes = write(&integer, &plan);
        let view = View::new_checked(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        println!(
            "{name}: arena {} (bound {}), file {}, {} ops, {} tensors",
            view.size(Space::Arena),
            plan.lower_bound(),
            bytes.len(),
            view.n_ops(),
            view.n_tensors()
        );
        let report = report(&frozen, &calibration, &integer, 8, fill).unwrap();
        for t in &report.tensors {
            println!(
                "  {:50} {:4} [{:9.3} {:9.3}] scale {:.2e} zero {:4} {:6.1} dB",
                t.name,
                t.dtype.name(),
                t.range.0,
                t.range.1,
                t.scale,
                t.zero,
                t.snr_db
            );
        }
        for i in &report.inverses {
            println!("  {:50} residual {:.1e} f32, {:.1e} integer", i.name, i.residual_f32, i.residual_integer);
        }
        let mut raw = vec![0.0; train.width()];
        fill(3, &mut raw);
        let _ = run_f32(&frozen, &raw);
    }
}
