//! A run as it is seen at a terminal.

use crate::terminal::{duration, percent, say};
use indicatif::ProgressBar;
use softedge::error::HostError;
use softedge::train::{EpochEnd, Observer, Progress};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user has asked for an end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether a run looks at that: nothing else has a state worth a checkpoint.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Does `run`, whose training the first interrupt of the user ends after its step. The second, and one
/// at any other time, ends the program.
pub fn interruptible<R>(run: impl FnOnce() -> R) -> R {
    // Where there is a handler already, it is this one.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) || !WATCHED.load(Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
    WATCHED.store(true, Ordering::SeqCst);
    let result = run();
    WATCHED.store(false, Ordering::SeqCst);
    result
}

/// Whether the user has asked for an end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// What is done at the end of an epoch.
type Keep<'a> = dyn FnMut(&EpochEnd<'_>) -> Result<(), HostError> + 'a;

/// Shows a run: a bar of its steps, a line for each epoch.
pub struct Watch<'a> {
    bar: &'a ProgressBar,
    epochs: usize,
    keep: &'a mut Keep<'a>,
}

impl<'a> Watch<'a> {
    /// Of a run of this many epochs, after each of which `keep` is called.
    pub fn new(bar: &'a ProgressBar, epochs: usize, keep: &'a mut Keep<'a>) -> Self {
        Self { bar, epochs, keep }
    }
}

impl Observer for Watch<'_> {
    fn on_step(&mut self, p: &Progress) -> ControlFlow<()> {
        self.bar.set_length(p.steps);
        self.bar.set_position(p.step);
        let (loss, accuracy, speed) = (p.epoch_loss, percent(p.epoch_accuracy.into()), p.samples_per_second);
        self.bar.set_message(format!("epoch {}  loss {loss:.4}  {accuracy}  {speed:.0}/s", p.epoch));
        if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn on_epoch(&mut self, end: &EpochEnd<'_>) -> Result<(), HostError> {
        let (e, width) = (end.epoch, self.epochs.to_string().len());
        let validation = match (e.validation_loss, e.validation_accuracy) {
            (Some(loss), Some(accuracy)) => format!("   validation {loss:.4}  {}", percent(accuracy)),
            _ => String::new(),
        };
        let speed = format!("{:.0} samples/s", e.samples_per_second);
        let line = format!(
            "epoch {:>width$}/{}   loss {:.4}  {}{validation}   {speed}  {}",
            e.epoch,
            self.epochs,
            e.loss,
            percent(e.accuracy),
            duration(e.seconds)
        );
        self.bar.suspend(|| say!("{line}"));
        (self.keep)(end)
    }
}
