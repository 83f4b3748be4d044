//! Executors over a checked Program.
//!
//! An executor is one loop over the ops of a [`View`](crate::format::View) that calls a plain
//! function per op. It never plans, allocates or infers shapes, and on checked bytes it cannot fail.
//!
//! - [`Engine`] is the firmware's: one model, one arena, input in, scores out.
//! - [`Steps`] is a run of it in pieces, for a cooperative firmware with deadlines.
//! - [`Executor`] is the general one underneath: any Program, all memory banks, ranges of ops.
//!
//! Which kinds of ops are compiled in is a constant ([`Runs::OPS`]), so that a firmware carries only
//! the code of the ops its models use.
//!
//! # Stack
//!
//! A run takes at most so many bytes of stack below its caller, in one piece or in steps: nothing is recursive, and
//! no array on the stack depends on the model.
//!
//! | core | bytes |
//! |---|---:|
//! | Cortex-M0 | 1,900 |
//! | Cortex-M3 | 1,650 |
//! | Cortex-M4F | 1,700 |
//! | Cortex-M33 | 1,700 |
//! | RV32IMC | 1,350 |
//!
//! They hold for programs built like `firmware-examples/emulated`, which paints the stack and finds what was
//! overwritten: `cargo test --features cli --test boards -- --nocapture` measures it on the two trained models, a
//! depthwise twin and a run in steps, prints it, and fails above these figures.

mod arena;
mod cpu;
mod device;
mod dispatch;
mod element;
mod executor;
mod integer;
mod steps;

#[cfg(feature = "alloc")]
pub use arena::Buffer;
pub use arena::{Aligned, Arena, ArenaBytes, Memory, elements, elements_mut};
#[doc(hidden)]
pub use device::Checked;
pub use device::{Engine, File, Loaded, Model, Scores};
pub use element::{Element, ElementOf, Raw};
pub use executor::Executor;
#[cfg(feature = "capi")]
pub(crate) use steps::Progress;
pub use steps::Steps;

pub use crate::program::{Every, Integers, Runs};

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use crate::format::{View, write};
    use crate::ops::{DType, Tick, add::Add, cross_entropy::CrossEntropy, linear::Linear, relu::Relu};
    use crate::program::{Init, Kind, Plan, Program, Role, Space, TensorId, differentiate, verify};
    use crate::{Error, ops};

    /// Two linear layers, a ReLU and a residual add; trained if `train`.
    fn residual_net(train: bool) -> (Program, TensorId) {
        let mut p = Program::new();
        let x = p.add("x", DType::F32, &[2, 3], Role::Activation);
        p.inputs.push(x);
        let w = p.add("w", DType::F32, &[3, 3], Role::Param { decay: true });
        let b = p.add("b", DType::F32, &[3], Role::Param { decay: false });
        p.tensors[w.index()].init = Init::Ones;
        let linear = Linear { rows: 2, k: 3, n: 3 };
        let h = p.apply("h", linear, &[Some(x), Some(w), Some(b)], &[2, 3]);
        let r = p.apply("r", Relu { len: 6 }, &[Some(h)], &[2, 3]);
        let s = p.apply("s", Add { len: 6 }, &[Some(r), Some(x)], &[2, 3]);
        // The same weights once more: their gradient has two parts.
        let y = p.apply("y", linear, &[Some(s), Some(w), None], &[2, 3]);
        let mut out = y;
        if train {
            let target = p.add("target", DType::F32, &[2, 3], Role::Activation);
            p.inputs.push(target);
            out = p.apply("loss", CrossEntropy { rows: 2, classes: 3, smoothing: 0.1 }, &[Some(y), Some(target)], &[1]);
            differentiate(&mut p, out);
        }
        p.outputs.push(out);
        (p, out)
    }

    const X: [f32; 6] = [0.5, -1.0, 2.0, 0.1, 0.7, -0.3];
    const W: [f32; 9] = [0.2, -0.4, 0.6, 1.0, 0.3, -0.2, -0.7, 0.9, 0.1];
    const B: [f32; 3] = [0.1, -0.2, 0.3];
    const T: [f32; 6] = [1.0, 0.0, 0.0, 0.0, 0.25, 0.75];

    fn reference(w: &[f64], b: &[f64]) -> (Vec<f64>, f64) {
        let (mut logits, mut loss) = (Vec::new(), 0.0);
        for (x, t) in X.chunks(3).zip(T.chunks(3)) {
            let apply = |v: &[f64], bias: &[f64]| -> Vec<f64> {
                (0..3).map(|j| (0..3).map(|i| v[i] * w[3 * j + i]).sum::<f64>() + bias[j]).collect()
            };
            let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            let s: Vec<f64> = apply(&x, b).iter().zip(&x).map(|(h, x)| h.max(0.0) + x).collect();
            let y = apply(&s, &[0.0; 3]);
            let log_sum = y.iter().map(|v| v.exp()).sum::<f64>().ln();
            let smooth = |t: f32| 0.9 * f64::from(t) + 0.1 / 3.0;
            loss -= y.iter().zip(t).map(|(v, t)| smooth(*t) * (v - log_sum)).sum::<f64>() / 2.0;
            logits.extend(y);
        }
        (logits, loss)
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|v| f64::from(*v)).collect()
    }

    #[test]
    fn a_program_runs_from_its_written_form() {
        let (program, y) = residual_net(false);
        let plan = Plan::new(&program);
        assert_eq!(verify(&program, &plan), Ok(()));
        let file = Buffer::copy_of(&write(&program, &plan).unwrap());
        let view = View::new_checked(file.bytes()).unwrap();
        let mut params = Buffer::zeroed(view.size(Space::Params));
        params.elements_mut()[..9].copy_from_slice(&W);
        params.elements_mut()[12..15].copy_from_slice(&B);
        let mut arena = Buffer::zeroed(view.size(Space::Arena));
        let memory = Memory::new(arena.bytes_mut()).with_shared(Space::Params, params.bytes());
        let mut executor: Executor<'_> = Executor::new(view, memory).unwrap();
        elements_mut(executor.tensor_mut(view.input_id(0)).unwrap()).copy_from_slice(&X);
        executor.run(&Tick::default());
        let want = reference(&wide(&W), &wide(&B)).0;
        ops::testing::assert_close("logits", elements(executor.tensor(y.index())), &want, 1e-6);
    }

    #[test]
    fn a_differentiated_program_gives_the_gradients_of_finite_differences() {
        let (program, loss) = residual_net(true);
        let plan = Plan::new(&program);
        assert_eq!(verify(&program, &plan), Ok(()));
        let file = Buffer::copy_of(&write(&program, &plan).unwrap());
        let view = View::new_checked(file.bytes()).unwrap();
        let mut params = Buffer::zeroed(view.size(Space::Params));
        params.elements_mut()[..9].copy_from_slice(&W);
        params.elements_mut()[12..15].copy_from_slice(&B);
        let (mut arena, mut grads) = (Buffer::zeroed(view.size(Space::Arena)), Buffer::zeroed(view.size(Space::Grads)));
        let memory = Memory::new(arena.bytes_mut())
            .with_shared(Space::Params, params.bytes())
            .with(Space::Grads, grads.bytes_mut());
        let mut executor: Executor<'_> = Executor::new(view, memory).unwrap();
        elements_mut(executor.tensor_mut(view.input_id(0)).unwrap()).copy_from_slice(&X);
        elements_mut(executor.tensor_mut(view.input_id(1)).unwrap()).copy_from_slice(&T);
        executor.run(&Tick::default());
        let got: f32 = elements(executor.tensor(loss.index()))[0];
        assert!((f64::from(got) - reference(&wide(&W), &wide(&B)).1).abs() < 1e-6);
        let difference = |at: &dyn Fn(f64) -> f64| (at(1e-6) - at(-1e-6)) / 2e-6;
        let dw: Vec<f64> = (0..9)
            .map(|i| {
                difference(&|e| {
                    let mut w = wide(&W);
                    w[i] += e;
                    reference(&w, &wide(&B)).1
                })
            })
            .collect();
        let db: Vec<f64> = (0..3)
            .map(|i| {
                difference(&|e| {
                    let mut b = wide(&B);
                    b[i] += e;
                    reference(&wide(&W), &b).1
                })
            })
            .collect();
        ops::testing::assert_close("dw", &grads.elements()[..9], &dw, 1e-5);
        ops::testing::assert_close("db", &grads.elements()[12..15], &db, 1e-5);
    }

    #[test]
    fn memory_that_does_not_fit_is_refused_with_both_sizes() {
        let (program, _) = residual_net(true);
        let file = Buffer::copy_of(&write(&program, &Plan::new(&program)).unwrap());
        let view = View::new_checked(file.bytes()).unwrap();
        let needed = view.size(Space::Arena);
        let mut small = Buffer::zeroed(needed - 16);
        let error = Executor::<Every>::new(view, Memory::new(small.bytes_mut())).err();
        assert_eq!(error, Some(Error::TooSmall { what: "arena", needed, found: needed - 16 }));
        let mut arena = Buffer::zeroed(needed + 16);
        let error = Executor::<Every>::new(view, Memory::new(&mut arena.bytes_mut()[4..])).err();
        assert_eq!(error, Some(Error::Misaligned { needed: 16, found: 4 }));
        let (params, grads) = (Buffer::zeroed(view.size(Space::Params)), Buffer::zeroed(view.size(Space::Grads)));
        let memory = Memory::new(arena.bytes_mut())
            .with_shared(Space::Params, params.bytes())
            .with_shared(Space::Grads, grads.bytes());
        let error = Executor::<Every>::new(view, memory).err();
        assert_eq!(error, Some(Error::ReadOnly { what: "gradients" }));
    }

    #[test]
    fn who_runs_integers_only_is_told_of_the_first_other_op() {
        let (program, _) = residual_net(false);
        let bytes = write(&program, &Plan::new(&program)).unwrap();
        let refused = Error::UnsupportedOp { index: 0, kind: Kind::Linear as u16 };
        assert_eq!(View::new_checked_for::<Integers>(&bytes).err(), Some(refused));
        assert!(View::new_checked_for::<Every>(&bytes).is_ok());
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed() {
        let (program, _) = residual_net(true);
        let bytes = write(&program, &Plan::new(&program)).unwrap();
        for i in 0..bytes.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[i] ^= flip;
                assert!(View::new_checked(&damaged).is_err(), "byte {i} ^ {flip}");
            }
            assert!(View::new_checked(&bytes[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn an_index_out_of_range_has_no_bytes() {
        let (program, _) = residual_net(false);
        let file = Buffer::copy_of(&write(&program, &Plan::new(&program)).unwrap());
        let view = View::new_checked(file.bytes()).unwrap();
        let mut arena = Buffer::zeroed(view.size(Space::Arena));
        let params = Buffer::zeroed(view.size(Space::Params));
        let memory = Memory::new(arena.bytes_mut()).with_shared(Space::Params, params.bytes());
        let mut executor: Executor<'_> = Executor::new(view, memory).unwrap();
        let beyond = [view.n_tensors(), view.n_tensors() + 1, 1000, view.input_id(1), view.output_id(9), usize::MAX];
        for id in beyond {
            assert!(view.tensor(id).is_empty());
            assert!(executor.tensor(id).is_empty());
            assert!(executor.tensor_mut(id).is_none_or(|bytes| bytes.is_empty()));
        }
    }
}
