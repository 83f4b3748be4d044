//! The firmware's engine: one model, one arena, input in, scores out.

use super::arena::{Aligned, ArenaBytes, Memory, elements, elements_mut};
use super::element::Element;
use super::executor::Executor;
use super::steps::Steps;
use crate::error::Error;
use crate::format::View;
use crate::ops::{DType, Tick};
use crate::program::{Runs, Space};

/// The bytes of a model known while compiling.
pub trait File: Copy + 'static {
    /// The file.
    const FILE: &'static Aligned<[u8]>;
}

/// A model known while compiling; [`include_model!`](crate::include_model) makes one.
pub trait Model: File + Runs {
    /// Element type of the raw input.
    type Input: Element;
    /// Element type of the scores.
    type Output: Element;
}

/// The check of a model, evaluated while compiling.
#[doc(hidden)]
pub struct Checked<M>(core::marker::PhantomData<M>);

impl<M: File> Checked<M> {
    #[allow(long_running_const_eval)]
    pub const VIEW: View<'static> = {
        let view = match View::new_checked(&M::FILE.0) {
            Ok(view) => view,
            Err(e) => panic!("{}", e.summary()),
        };
        assert!(
            view.size(Space::Params) == 0 && view.size(Space::Grads) == 0 && view.size(Space::State) == 0,
            "a training Program is not a model: export it first"
        );
        view
    };

    pub const ARENA_BYTES: usize = Self::VIEW.size(Space::Arena);
}

/// Includes a `.soft` file as a model: checked, and sized, while compiling.
///
/// A corrupt or too new file is a compile error. The file lies in flash at a multiple of 16;
/// attributes (a link section, say) go before `static` and apply to its bytes.
///
/// ```ignore
/// softedge::include_model!(static GESTURE = "gesture.soft");
/// static ARENA: Arena<{ GESTURE.arena_bytes() }> = Arena::new();
/// ```
#[macro_export]
macro_rules! include_model {
    ($(#[$attribute:meta])* $visibility:vis static $NAME:ident = $path:expr) => {
        #[doc = concat!("The model `", $path, "`.")]
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        $visibility struct $NAME;

        const _: () = {
            use $crate::engine::{Aligned, Checked, ElementOf, File, Model, Raw, Runs};

            $(#[$attribute])*
            static FILE: Aligned<[u8; include_bytes!($path).len()]> = Aligned(*include_bytes!($path));

            impl File for $NAME {
                const FILE: &'static Aligned<[u8]> = &FILE;
            }

            const VIEW: $crate::format::View<'static> = Checked::<$NAME>::VIEW;

            impl Runs for $NAME {
                const OPS: $crate::program::OpSet = VIEW.op_set();
            }

            impl Model for $NAME {
                type Input = <Raw<{ VIEW.input(0).dtype as u8 }> as ElementOf>::Type;
                type Output = <Raw<{ VIEW.output(0).dtype as u8 }> as ElementOf>::Type;
            }

            impl $NAME {
                /// Bytes of arena the model needs.
                $visibility const fn arena_bytes(&self) -> usize {
                    Checked::<Self>::ARENA_BYTES
                }
            }
        };
    };
}

/// One model on one arena: no heap, no failure, no panic.
///
/// ```ignore
/// let mut engine = Engine::new(&GESTURE, ARENA.take()?);
/// engine.input().copy_from_slice(&window);
/// let scores = engine.run();
/// defmt::info!("{}", scores.argmax());
/// ```
pub struct Engine<'a, M: Model> {
    executor: Executor<'a, M>,
}

impl<'a, M: Model> Engine<'a, M> {
    /// Binds `model` to an arena of at least `arena_bytes()`; a smaller one does not compile.
    pub fn new<const N: usize>(model: &M, arena: &'a mut ArenaBytes<N>) -> Self {
        const {
            let view = Checked::<M>::VIEW;
            assert!(view.input(0).dtype as u8 == M::Input::DTYPE as u8, "the type of the raw input");
            assert!(view.output(0).dtype as u8 == M::Output::DTYPE as u8, "the type of the scores");
        }
        const { assert!(N >= Checked::<M>::ARENA_BYTES, "the arena is smaller than the model needs: see arena_bytes()") }
        let _ = model;
        Self { executor: Executor::inference(Checked::<M>::VIEW, &mut arena.0) }
    }

    /// The raw input, to be written before every run: its bytes are reused while the model runs.
    pub fn input(&mut self) -> &mut [M::Input] {
        self.executor.input(0)
    }

    /// Runs the model and gives its scores.
    pub fn run(&mut self) -> Scores<'_, M::Output> {
        self.executor.run(&Tick::default());
        self.executor.scores()
    }

    /// Begins a run that goes on by [`Steps::step`], between which the firmware does something else.
    pub fn start(&mut self) -> Steps<'_, 'a, M, M::Output> {
        Steps::new(&mut self.executor)
    }
}

/// A model that arrives at run time (over a wire, from a file system), restricted to the ops of `S`.
pub struct Loaded<'a, S: Runs> {
    executor: Executor<'a, S>,
}

impl<'a, S: Runs> Loaded<'a, S> {
    /// Checks `bytes` and binds the model to `arena`; both at multiples of 16.
    ///
    /// # Errors
    /// What is wrong with the file, which op is outside `S`, or how large the arena should be.
    pub fn new(bytes: &'a [u8], arena: &'a mut [u8]) -> Result<Self, Error> {
        let view = View::new_checked_for::<S>(bytes)?;
        Ok(Self { executor: Executor::new(view, Memory::new(arena))? })
    }

    /// The checked file.
    pub fn view(&self) -> View<'a> {
        self.executor.view()
    }

    /// The raw input, to be written before every run.
    ///
    /// # Errors
    /// If the model's input is not of type `T`.
    pub fn input<T: Element>(&mut self) -> Result<&mut [T], Error> {
        same_type::<T>("raw input", self.view().input(0).dtype)?;
        Ok(self.executor.input(0))
    }

    /// Runs the model and gives its scores.
    ///
    /// # Errors
    /// If the model's scores are not of type `T`.
    pub fn run<T: Element>(&mut self) -> Result<Scores<'_, T>, Error> {
        same_type::<T>("score", self.view().output(0).dtype)?;
        self.executor.run(&Tick::default());
        Ok(self.executor.scores())
    }

    /// Begins a run that goes on by [`Steps::step`].
    ///
    /// # Errors
    /// If the model's scores are not of type `T`.
    pub fn start<T: Element>(&mut self) -> Result<Steps<'_, 'a, S, T>, Error> {
        same_type::<T>("score", self.view().output(0).dtype)?;
        Ok(Steps::new(&mut self.executor))
    }
}

fn same_type<T: Element>(what: &'static str, found: DType) -> Result<(), Error> {
    if found == T::DTYPE {
        Ok(())
    } else {
        Err(Error::ElementType { what, needed: T::DTYPE.name(), found: found.name() })
    }
}

impl<'a, S: Runs> Executor<'a, S> {
    fn input<T: Element>(&mut self, i: usize) -> &mut [T] {
        let id = self.view().input_id(i);
        elements_mut(self.tensor_mut(id).unwrap_or_default())
    }

    /// The first output, which is of type `T`.
    pub(crate) fn scores<T: Element>(&self) -> Scores<'_, T> {
        let id = self.view().output_id(0);
        Scores { values: elements(self.tensor(id)), view: self.view() }
    }
}

/// The scores of one run, one per class: logits, in units of [`scale`](Self::scale).
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scores<'a, T> {
    values: &'a [T],
    view: View<'a>,
}

impl<'a, T: Element> Scores<'a, T> {
    /// One score per class.
    pub fn values(&self) -> &'a [T] {
        self.values
    }

    /// The class with the largest score; the first of equals.
    pub fn argmax(&self) -> usize {
        let mut best = (0, self.values.first());
        for (i, v) in self.values.iter().enumerate() {
            if best.1.is_some_and(|b| v > b) {
                best = (i, Some(v));
            }
        }
        best.0
    }

    /// The `K` classes with the largest scores, best first.
    pub fn top<const K: usize>(&self) -> heapless::Vec<(usize, T), K> {
        let mut top: heapless::Vec<(usize, T), K> = heapless::Vec::new();
        for (i, &v) in self.values.iter().enumerate() {
            let place = top.iter().position(|(_, t)| v > *t).unwrap_or(top.len());
            if place < K {
                if top.is_full() {
                    top.pop();
                }
                // There is room: just made, or never full.
                let _ = top.insert(place, (i, v));
            }
        }
        top
    }

    /// The name of a class, if the model carries labels.
    pub fn label(&self, class: usize) -> Option<&'a str> {
        self.view.label(class)
    }

    /// The real value of one unit.
    pub fn scale(&self) -> f32 {
        self.view.output(0).scale
    }
}
