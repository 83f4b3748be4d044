//! A run in steps, of any size, computes what a run in one piece does.

use softedge::engine::{Buffer, Element, Integers, Loaded};
use softedge::format::View;
use softedge::program::Space;
use std::fs;

const GESTURE: &str = "firmware-examples/minimal/src/gesture.soft";
const FASHION: &str = "firmware-examples/two-models/src/fashion.soft";

/// Holds runs in steps of so many rows against a whole run; returns how many steps those of one row took.
fn check<I: Element + Default>(path: &str, value: impl Fn(usize) -> I) -> usize {
    let file = Buffer::copy_of(&fs::read(path).unwrap());
    let view = View::new_checked(file.bytes()).unwrap();
    let mut arena = Buffer::zeroed(view.size(Space::Arena));
    let mut model = Loaded::<Integers>::new(file.bytes(), arena.bytes_mut()).unwrap();
    let fill = |model: &mut Loaded<'_, Integers>| {
        model.input().unwrap().iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
    };
    fill(&mut model);
    let want = model.run::<i16>().unwrap().values().to_vec();
    assert!(want.iter().any(|&score| score != want[0]));
    let mut most = 0;
    for rows in [1, 2, 3, 7, 1000, usize::MAX] {
        // One that is given up half-way leaves nothing behind.
        for end in [10, usize::MAX] {
            fill(&mut model);
            let mut steps = model.start::<i16>().unwrap();
            let mut taken = 1;
            while taken < end && steps.step(rows) {
                taken += 1;
            }
            if end == usize::MAX {
                assert!(!steps.step(rows), "nothing is left");
                assert_eq!(steps.finish().values(), want, "{path} by {rows}");
                assert!(taken >= view.n_ops());
                most = most.max(taken);
            }
        }
    }
    fill(&mut model);
    let mut steps = model.start::<i16>().unwrap();
    (0..20).for_each(|_| assert!(steps.step(1)));
    assert_eq!(steps.finish().values(), want, "{path} finished early");
    assert!(model.start::<i8>().is_err(), "scores of another type");
    most
}

#[test]
fn steps_of_any_size_compute_what_a_whole_run_does() {
    assert!(check(GESTURE, |i| (i * 7919 % 4001) as i16 - 2000) > 100);
    assert!(check(FASHION, |i| (i * 31 % 256) as u8) > 100);
}
