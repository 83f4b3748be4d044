//! A second implementation of integer inference, and that the library agrees with it bit for bit.
//!
//! The reference reads the `.soft` file by itself and follows the documentation of the format and of
//! every op, with plain loops over exact integers. Whoever writes an engine for another device can
//! start from it.

#[path = "../common/mod.rs"]
mod common;
mod eval;
mod ops;
mod parse;

use common::{Random, quantised_to, raw_type, spread};
use eval::Run;
use softedge::engine::{Buffer, Every, Executor, Loaded, Memory};
use softedge::format::{View, write};
use softedge::model::{Config, Head, Inverse, Landmarks, Local, Mixer, Norm, Per, Soft, preset};
use softedge::ops::{DType, Tick, Width};
use softedge::program::{Kind, Plan, Program, Space, in_strips};
use std::collections::BTreeSet;

/// Runs a Program on each of `inputs` (the raw bytes of all its inputs) in the engine and in the
/// reference, and compares every tensor after every op. Returns the reference's first output for each.
fn assert_agreement(what: &str, program: &Program, inputs: &[Vec<Vec<u8>>]) -> Vec<Vec<i64>> {
    let bytes = Buffer::copy_of(&write(program, &Plan::new(program)).unwrap());
    let file = parse::parse(bytes.bytes());
    let view = View::new_checked(bytes.bytes()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(file.labels, program.labels, "{what}");
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut executor = Executor::<Every>::new(view, Memory::new(arena.bytes_mut())).unwrap();
    let mut outputs = vec![];
    for (i, raw) in inputs.iter().enumerate() {
        let mut numbers = vec![];
        for (id, raw) in file.inputs.iter().zip(raw) {
            executor.tensor_mut(*id).unwrap().copy_from_slice(raw);
            numbers.push(file.tensors[*id].dtype.numbers(raw));
        }
        let mut run = Run::new(&file, &numbers);
        executor.run_watched(0..file.ops.len(), &Tick::default(), |index, _, executor| {
            let op = &file.ops[index];
            run.step(op);
            for id in op.outs.iter().flatten() {
                if let Some(expected) = run.get(*id) {
                    let found = file.tensors[*id].dtype.numbers(executor.tensor(*id));
                    assert_eq!(&found, expected, "{what}, input {i}: op {index}, {}", op.name);
                }
            }
            true
        });
        outputs.push(run.read(file.outputs[0]));
    }
    outputs
}

/// As [`assert_agreement`], for a model on 64 inputs of the bundled data; and that the engine of
/// loaded models gives the reference's scores.
fn assert_model_agrees(config: &Config) {
    assert_so_changed(config, Width::Int8, Program::clone);
}

/// As [`assert_model_agrees`], for what `change` makes of the model with these weights.
fn assert_so_changed(config: &Config, weights: Width, change: impl Fn(&Program) -> Program) {
    let model = quantised_to(config, weights);
    let mut program = change(&model.integer);
    program.labels = (0..config.classes).map(|class| format!("class {class}")).collect();
    let raw = |i: usize| vec![model.data.raw_bytes(spread(model.data, i)).into_owned()];
    let inputs: Vec<_> = (0..64).map(raw).collect();
    let scores = assert_agreement(&config.name, &program, &inputs);

    let bytes = Buffer::copy_of(&write(&program, &Plan::new(&program)).unwrap());
    let mut arena = Buffer::zeroed(View::new_checked(bytes.bytes()).unwrap().size(Space::Arena));
    let mut loaded = Loaded::<Every>::new(bytes.bytes(), arena.bytes_mut()).unwrap();
    for (raw, expected) in inputs.iter().zip(&scores) {
        let raw = Buffer::copy_of(&raw[0]);
        match raw_type(config) {
            DType::I16 => loaded.input::<i16>().unwrap().copy_from_slice(raw.elements()),
            _ => loaded.input::<u8>().unwrap().copy_from_slice(raw.elements()),
        }
        let found = loaded.run::<i16>().unwrap();
        let found: Vec<i64> = found.values().iter().map(|score| i64::from(*score)).collect();
        assert_eq!(&found, expected, "{}", config.name);
    }
    let varied = scores.iter().any(|other| other != &scores[0]);
    assert!(varied, "{}: the same scores for every input", config.name);
}

#[test]
fn the_soft_presets_agree() {
    for name in ["fashion-nano", "fashion-micro", "watch-nano"] {
        assert_model_agrees(&preset(name).unwrap());
    }
}

#[test]
fn their_softmax_twins_agree() {
    for name in ["fashion-nano-softmax", "fashion-micro-softmax", "watch-nano-softmax"] {
        assert_model_agrees(&preset(name).unwrap());
    }
}

#[test]
fn their_depthwise_twins_agree() {
    for name in ["fashion-nano-depthwise", "fashion-micro-depthwise", "watch-nano-depthwise"] {
        assert_model_agrees(&preset(name).unwrap());
    }
}

/// An image of which rows make room for rows of feature maps, and tokens some of which go through a branch.
#[test]
fn layers_in_strips_agree() {
    let mut camera = preset("camera-224").unwrap();
    (camera.input.height, camera.input.width) = (64, 64);
    camera.stages.truncate(2);
    for config in [camera, preset("fashion-nano").unwrap(), preset("fashion-nano-depthwise").unwrap()] {
        for weights in Width::ALL {
            assert_so_changed(&config, weights, |whole| {
                let strips = in_strips(whole);
                assert!(strips.nodes.len() > whole.nodes.len(), "{}", config.name);
                strips
            });
        }
    }
}

#[test]
fn weights_of_other_widths_agree() {
    for weights in [Width::Int4, Width::Int16] {
        for name in ["fashion-nano", "watch-nano", "fashion-nano-depthwise"] {
            assert_so_changed(&preset(name).unwrap(), weights, Program::clone);
        }
    }
}

/// SOFT++ as the official code has it, with and without a ridge, small.
#[test]
fn newton_on_landmarks_of_a_convolution_agrees() {
    for ridge in [0.0, 0.01] {
        let mut config = preset("fashion-nano").unwrap();
        config.name = format!("newton, ridge {ridge}");
        for stage in &mut config.stages {
            stage.norm = Norm::Post;
            stage.mixer = Mixer::Soft(Soft {
                landmarks: Landmarks::Conv(2),
                inverse: Inverse::Newton(20),
                ridge,
                sym_norm: true,
                mean: ridge > 0.0,
                local: Some(Local { kernel: 5, per: Per::Head }),
            });
        }
        assert_model_agrees(&config);
    }
}

#[test]
fn a_class_token_and_learned_positions_agree() {
    let mut config = preset("fashion-nano").unwrap();
    config.name = "class token".into();
    config.head = Head::ClassToken;
    for stage in &mut config.stages {
        stage.position = Some([7, 7]);
    }
    config.stages[1].mixer = Mixer::Softmax;
    assert_model_agrees(&config);
}

#[test]
fn every_integer_op_agrees_on_random_shapes_and_extreme_values() {
    let mut random = Random::new(11);
    let mut seen = BTreeSet::new();
    for case in 0..400 {
        for shape in ops::SHAPES {
            let program = ops::one_op(shape(&mut random), &mut random);
            let name = program.nodes[0].op.kind().name();
            let inputs = [ops::raw(&program, &mut random), ops::raw(&program, &mut random)];
            assert_agreement(&format!("{name}, case {case}"), &program, &inputs);
            seen.insert(program.nodes[0].op.kind());
        }
        let program = ops::attention(&mut random);
        let inputs = [ops::raw(&program, &mut random), ops::raw(&program, &mut random)];
        assert_agreement(&format!("attention, case {case}"), &program, &inputs);
        seen.extend(program.nodes.iter().map(|node| node.op.kind()));
    }
    let integer = Kind::ALL.iter().filter(|kind| **kind >= Kind::InputU8);
    assert!(integer.eq(&seen), "an integer op that is never tried");
}
