//! From a model to integers: freeze, calibrate, rewrite, report, run.

mod common;

use common::{data_for, frozen, quantised, quantised_to, raw_type, small_presets, spread, unfrozen};
use softedge::engine::{Buffer, Executor, Memory, elements, elements_mut};
use softedge::format::{View, write};
use softedge::model::preset;
use softedge::ops::scale::Scale;
use softedge::ops::{DType, Tick, Width};
use softedge::program::{Op, ParamLayout, Plan, Program, Role, Space, TensorId, in_strips, verify};
use softedge::quant::{Bounds, calibrate, freeze, quantise, report};
use std::collections::HashMap;

/// The output of an f32 Program whose parameters, if it has any left, have these values.
fn run_f32(program: &Program, values: &HashMap<String, Vec<f32>>, raw: &[f32]) -> Vec<f32> {
    let file = Buffer::copy_of(&write(program, &Plan::new(program)).unwrap());
    let view = View::new_checked(file.bytes()).unwrap();
    let mut params = Buffer::zeroed(view.size(Space::Params));
    let layout = ParamLayout::new(program);
    for (i, t) in program.tensors.iter().enumerate().filter(|(_, t)| t.space() == Space::Params) {
        let at = layout.offset(TensorId(i as u16)) / 4;
        params.elements_mut()[at..][..t.len()].copy_from_slice(&values[&t.name]);
    }
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let memory = Memory::new(arena.bytes_mut()).with_shared(Space::Params, params.bytes());
    let mut executor: Executor<'_> = Executor::new(view, memory).unwrap();
    elements_mut(executor.tensor_mut(view.input_id(0)).unwrap()).copy_from_slice(raw);
    executor.run(&Tick::default());
    elements(executor.tensor(view.output_id(0))).to_vec()
}

#[test]
fn every_small_preset_becomes_integers_that_follow_it() {
    for name in small_presets() {
        let config = preset(name).unwrap();
        let model = quantised(&config);
        let plan = Plan::new(&model.integer);
        assert_eq!(verify(&model.integer, &plan), Ok(()), "{name}");
        let bytes = write(&model.integer, &plan).unwrap();
        let view = View::new_checked(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (arena, bound) = (view.size(Space::Arena), plan.lower_bound());
        assert!(arena as f64 <= 1.1 * bound as f64, "{name}: an arena of {arena} for a bound of {bound}");

        // Inputs that calibration has not seen.
        let fill = |i: usize, raw: &mut [f32]| model.data.sample_f32(spread(model.data, 100 + i), raw);
        let report = report(&model.frozen, &model.calibration, &model.integer, 8, fill).unwrap();
        let logits = &model.integer.tensor(model.integer.outputs[0]).name;
        let logits = report.tensors.iter().find(|t| t.name == *logits).expect("reported");
        let worst = report.tensors.iter().min_by(|a, b| a.snr_db.total_cmp(&b.snr_db)).expect("reported");
        for i in &report.inverses {
            assert!(i.residual_integer < 1e-4, "{name}: {} leaves {}", i.name, i.residual_integer);
        }
        let inverses = model.frozen.nodes.iter().filter(|node| matches!(node.op, Op::InverseLdlt(_))).count();
        assert_eq!(report.inverses.len(), inverses);
        // Measured: logits at 26 dB and above, and no tensor below 13 dB.
        assert!(logits.snr_db > 20.0, "{name}: logits at {} dB", logits.snr_db);
        assert!(worst.snr_db > 10.0, "{name}: {} at {} dB", worst.name, worst.snr_db);
    }
}

/// Weights of other widths: how near the scores are, and what the file takes.
#[test]
fn wider_weights_are_nearer_and_narrower_ones_smaller() {
    for name in ["fashion-nano", "watch-nano", "fashion-nano-depthwise"] {
        let config = preset(name).unwrap();
        let of = |weights: Width| {
            let model = quantised_to(&config, weights);
            let plan = Plan::new(&model.integer);
            assert_eq!(verify(&model.integer, &plan), Ok(()), "{name}");
            let bytes = write(&model.integer, &plan).unwrap();
            View::new_checked(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            let fill = |i: usize, raw: &mut [f32]| model.data.sample_f32(spread(model.data, 100 + i), raw);
            let report = report(&model.frozen, &model.calibration, &model.integer, 8, fill).unwrap();
            let logits = &model.integer.tensor(model.integer.outputs[0]).name;
            let logits = report.tensors.iter().find(|t| t.name == *logits).expect("reported");
            (logits.snr_db, bytes.len(), plan.size(Space::Arena))
        };
        let [int4, int8, int16] = Width::ALL.map(of);
        // Measured: 13.8 dB and above with int4; with int16 what activations cost is left, 0.7 dB either way.
        assert!(int4.0 > 12.0 && int16.0 > int8.0 - 1.0, "{name}: {int4:?} {int8:?} {int16:?}");
        // A half and twice the weights, beside what is the same.
        assert!(
            int4.1 * 3 < int8.1 * 2 + 3000 && int16.1 * 3 < int8.1 * 5 + 3000,
            "{name}: {int4:?} {int8:?} {int16:?}"
        );
        assert_eq!([int4.2, int16.2], [int8.2; 2], "{name}: the arena");
    }
}

/// The files of the presets and their twins are of equal size to within 4 %; a twin's arena may be smaller.
#[test]
fn presets_fit_their_boards_and_twins_their_presets() {
    let size = |name: &str| {
        let integer = quantised(&preset(name).unwrap()).integer;
        let plan = Plan::new(&integer);
        let bytes = write(&integer, &plan).unwrap();
        (View::new_checked(&bytes).unwrap().size(Space::Arena) as f64, bytes.len() as f64)
    };
    for (name, arena_kib, file_kib) in
        [("fashion-nano", 32.0, 64.0), ("fashion-micro", 64.0, 160.0), ("watch-nano", 32.0, 64.0)]
    {
        let (arena, file) = size(name);
        assert!(arena <= arena_kib * 1024.0 && file <= file_kib * 1024.0, "{name}: {arena} and {file}");
        for twin in ["softmax", "depthwise"] {
            let (its_arena, its_file) = size(&format!("{name}-{twin}"));
            assert!((its_file / file - 1.0).abs() < 0.04, "{name}-{twin}: {its_file} beside {file}");
            assert!(its_arena < 1.04 * arena, "{name}-{twin}: {its_arena} beside {arena}");
        }
    }
}

/// The scores of an integer Program in an arena that was full of something else.
fn scores(program: &Program, raw: &[u8]) -> Vec<u8> {
    let file = Buffer::copy_of(&write(program, &Plan::new(program)).unwrap());
    let view = View::new_checked(file.bytes()).unwrap();
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    arena.bytes_mut().fill(0xaa);
    let mut executor: Executor<'_> = Executor::new(view, Memory::new(arena.bytes_mut())).unwrap();
    executor.tensor_mut(view.input_id(0)).unwrap().copy_from_slice(raw);
    executor.run(&Tick::default());
    executor.tensor(view.output_id(0)).to_vec()
}

/// Arenas before and after layers were put in strips: the image takes 27,648 and 150,528 bytes of them.
#[test]
fn cameras_fit_their_boards() {
    for (name, whole_arena, arena, flash_kib) in
        [("camera-96", 96_512, 81_344, 128), ("camera-224", 252_816, 156_048, 384)]
    {
        let model = quantised(&preset(name).unwrap());
        let strips = in_strips(&model.integer);
        let [whole, planned] = [&model.integer, &strips].map(Plan::new);
        assert_eq!(verify(&strips, &planned), Ok(()), "{name}");
        let sizes = [whole.size(Space::Arena), planned.size(Space::Arena)];
        assert!(sizes[0] <= whole_arena && sizes[1] <= arena, "{name}: arenas of {sizes:?}");
        assert!(sizes[1] as f64 <= 1.1 * planned.lower_bound() as f64, "{name}: {sizes:?}");
        let file = write(&strips, &planned).unwrap().len();
        assert!(file <= flash_kib << 10, "{name}: a file of {file}");
        for i in 0..3 {
            let raw = model.data.raw_bytes(spread(model.data, i));
            assert_eq!(scores(&strips, &raw), scores(&model.integer, &raw), "{name}, image {i}");
        }
    }
}

#[test]
fn folding_changes_nothing() {
    for name in small_presets() {
        let config = preset(name).unwrap();
        let (program, values) = unfrozen(&config);
        let frozen = frozen(&config);
        let is_norm = |node: &softedge::program::Node| matches!(node.op, Op::BatchNormEval(_));
        assert!(program.nodes.iter().any(is_norm) && !frozen.nodes.iter().any(is_norm), "{name}");
        // A few units in the last place, from layer to layer; an inverse amplifies them by its condition
        // number, up to m / ridge = 1600.
        let inverts = frozen.nodes.iter().any(|node| matches!(node.op, Op::InverseLdlt(_)));
        let bound = if inverts { 1e-4 } else { 16.0 * f32::EPSILON };
        let data = data_for(&config);
        let mut raw = vec![0.0; data.width()];
        for i in 0..4 {
            data.sample_f32(spread(data, i), &mut raw);
            let (before, after) = (run_f32(&program, &values, &raw), run_f32(&frozen, &HashMap::new(), &raw));
            let largest = before.iter().fold(0.0f32, |a, v| a.max(v.abs()));
            let change = before.iter().zip(&after).fold(0.0f32, |a, (b, v)| a.max((b - v).abs()));
            assert!(change < bound * largest, "{name}: scores up to {largest} changed by {change}");
        }
    }
}

#[test]
fn parameters_of_another_model_are_refused_by_name() {
    let (program, mut values) = unfrozen(&preset("fashion-nano").unwrap());
    let freeze =
        |values: &HashMap<String, Vec<f32>>| freeze(&program, |name| values.get(name).map(Vec::as_slice)).unwrap_err();
    let name = values.keys().find(|name| name.contains("head")).expect("a head").clone();
    let len = values[&name].len();
    values.insert(name.clone(), vec![0.0; len + 1]);
    let error = freeze(&values);
    assert_eq!(error.place, name);
    assert_eq!(error.problem, format!("needs {len} values and has {}", len + 1));
    values.remove(&name);
    let error = freeze(&values);
    assert_eq!((error.place, &error.problem[..]), (name, "the checkpoint has no such tensor"));
}

#[test]
fn calibration_needs_data_and_finite_values() {
    let config = preset("fashion-nano").unwrap();
    let (frozen, data) = (frozen(&config), data_for(&config));
    let fill = |i: usize, raw: &mut [f32]| data.sample_f32(i, raw);
    let error = calibrate(&frozen, 0, fill, Bounds::MinMax).unwrap_err();
    assert_eq!(error.problem, "needs at least one sample and has none");
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let spoilt = |i: usize, raw: &mut [f32]| {
            fill(i, raw);
            if i == 3 {
                raw[77] = bad;
            }
        };
        let error = calibrate(&frozen, 5, spoilt, Bounds::MinMax).unwrap_err();
        assert_eq!(error.problem, format!("holds {text} on calibration sample 3"));
        assert_eq!(error.place, frozen.tensor(frozen.inputs[0]).name);
    }
}

/// A camera with its cap on: ranges of a single value are no reason to fail.
#[test]
fn black_images_calibrate() {
    let config = preset("fashion-nano").unwrap();
    let frozen = frozen(&config);
    let calibration = calibrate(&frozen, 4, |_, raw| raw.fill(0.0), Bounds::Percentile(99.9)).unwrap();
    let integer = quantise(&frozen, &calibration, raw_type(&config), Width::Int8).unwrap();
    View::new_checked(&write(&integer, &Plan::new(&integer)).unwrap()).unwrap();
}

#[test]
fn percentiles_are_inside_the_extremes() {
    let config = preset("fashion-nano").unwrap();
    let (frozen, data) = (frozen(&config), data_for(&config));
    let bounds = |bounds| calibrate(&frozen, 16, |i, raw| data.sample_f32(spread(data, i), raw), bounds).unwrap();
    let (all, most) = (bounds(Bounds::MinMax), bounds(Bounds::Percentile(99.0)));
    let mut narrower = 0;
    for id in (0..frozen.tensors.len()).map(|i| TensorId(i as u16)) {
        let (Some(all), Some(most)) = (all.of(id), most.of(id)) else { continue };
        assert_eq!((all.lo, all.hi), (all.min, all.max));
        assert!(all.lo <= most.lo && most.lo < most.hi && most.hi <= all.hi, "{}", frozen.tensor(id).name);
        narrower += usize::from(most.hi - most.lo < all.hi - all.lo);
    }
    assert!(narrower > frozen.nodes.len() / 2, "{narrower} of {} ranges are narrower", frozen.nodes.len());
}

#[test]
fn an_op_without_an_integer_form_is_named() {
    let mut program = Program::new();
    let x = program.add("x", DType::F32, &[4], Role::Activation);
    program.inputs.push(x);
    let y = program.apply("y", Scale { len: 4, factor: 2.0 }, &[Some(x)], &[4]);
    program.outputs.push(y);
    let calibration = calibrate(&program, 1, |_, raw| raw.fill(1.0), Bounds::MinMax).unwrap();
    let error = quantise(&program, &calibration, DType::I16, Width::Int8).unwrap_err();
    assert_eq!((&error.place[..], &error.problem[..]), ("y", "is made by Scale, which has no integer form"));
}

/// What `quantise` says of a model with this SOFT attention, or `None` where it takes it.
fn refusal(change: impl Fn(&mut softedge::model::Soft)) -> Option<softedge::error::HostError> {
    let mut config = preset("fashion-nano").unwrap();
    for stage in &mut config.stages {
        if let softedge::model::Mixer::Soft(soft) = &mut stage.mixer {
            change(soft);
        }
    }
    let (frozen, data) = (frozen(&config), data_for(&config));
    let calibration = calibrate(&frozen, 2, |i, raw| data.sample_f32(i, raw), Bounds::MinMax).unwrap();
    quantise(&frozen, &calibration, raw_type(&config), Width::Int8).err()
}

#[test]
fn a_ridge_that_no_integer_inverse_takes_is_an_error() {
    assert_eq!(refusal(|_| ()), None);
    for ridge in [0.001, 1.5] {
        let error = refusal(|soft| soft.ridge = ridge).expect("refused");
        assert!(error.problem.contains("ridge") && error.remedy.contains("1/256 to 1"), "{error}");
    }
}

#[test]
fn one_outlier_does_not_coarsen_a_percentile() {
    let mut program = Program::new();
    let x = program.add("x", DType::F32, &[10_000], Role::Activation);
    program.inputs.push(x);
    let y = program.apply("y", Scale { len: 10_000, factor: 2.0 }, &[Some(x)], &[10_000]);
    program.outputs.push(y);
    let ramp = |_, raw: &mut [f32]| {
        raw.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32 / 10_000.0);
        raw[5000] = 1e6;
    };
    let calibration = calibrate(&program, 1, ramp, Bounds::Percentile(99.0)).unwrap();
    let seen = calibration.of(y).unwrap();
    assert!((seen.lo - 0.01).abs() < 0.005 && (seen.hi - 1.99).abs() < 0.005, "{seen:?}");
}

/// x -> a linear layer with a channel of exact zeros -> a class token beside which it is small.
fn small_tokens() -> Program {
    let mut program = Program::new();
    let x = program.add("x", DType::F32, &[1, 2], Role::Activation);
    program.inputs.push(x);
    let w = program.constant_f32("w", &[2, 2], &[1.0, 1.0, 0.0, 0.0]);
    let b = program.constant_f32("b", &[2], &[0.0, 0.3]);
    let linear = softedge::ops::linear::Linear { rows: 1, k: 2, n: 2 };
    let y = program.apply("y", linear, &[Some(x), Some(w), Some(b)], &[1, 2]);
    let token = program.constant_f32("token", &[2], &[-500.0, 20.0]);
    let prepend = softedge::ops::tokens::Prepend { batch: 1, n: 1, c: 2 };
    let z = program.apply("z", prepend, &[Some(y), Some(token)], &[1, 2, 2]);
    program.outputs.push(z);
    program
}

#[test]
fn zero_weights_keep_their_bias_and_tokens_their_class_token() {
    let program = small_tokens();
    let calibration = calibrate(&program, 1, |_, raw| raw.fill(1.0), Bounds::MinMax).unwrap();
    let integer = quantise(&program, &calibration, DType::I16, Width::Int8).unwrap();
    let bytes = &integer.tensor(integer.find("w.bias").unwrap()).data;
    let bias = i32::from_le_bytes(bytes[4..8].try_into().unwrap());
    // As fine as 30 bits allow, where a scale of 1 left it a few units.
    assert!((1 << 28..=1 << 30).contains(&bias), "{bias}");
}
