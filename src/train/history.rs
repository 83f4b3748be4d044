//! What a run tells while it goes on, and what it remembers.

use super::checkpoint::Checkpoint;
use super::evaluate::Evaluation;
use crate::error::HostError;
use core::ops::ControlFlow;
use core::time::Duration;
use std::format;
use std::string::String;
use std::vec::Vec;

/// Where a run is, after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Epochs of the run.
    pub epochs: usize,
    /// Steps done.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Loss of this step's batch.
    pub loss: f32,
    /// Mean loss of the epoch so far.
    pub epoch_loss: f32,
    /// Part of the epoch's samples so far that were classified correctly, as augmented.
    pub epoch_accuracy: f32,
    /// Learning rate of this step.
    pub lr: f32,
    /// Norm of this step's gradient, before clipping.
    pub gradient_norm: f32,
    /// Training samples per second, since this process began to train.
    pub samples_per_second: f32,
    /// Time since this process began to train.
    pub elapsed: Duration,
    /// Time that the rest of the run will take at this speed.
    pub remaining: Duration,
}

/// What is remembered of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Steps done at its end.
    pub step: u64,
    /// Learning rate of its last step.
    pub lr: f32,
    /// Mean training loss, label smoothing and augmentation included.
    pub loss: f64,
    /// Training accuracy, on the samples as augmented, while the parameters changed.
    pub accuracy: f64,
    /// Mean cross-entropy on the validation samples, if the epoch was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Accuracy on the validation samples, if the epoch was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Seconds spent on its training steps.
    pub seconds: f64,
    /// Training samples per second.
    pub samples_per_second: f64,
}

/// All epochs so far; survives a resumed run.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct History {
    /// First to last.
    pub epochs: Vec<Epoch>,
}

impl History {
    /// A table with a header line; what was not evaluated is empty.
    pub fn to_csv(&self) -> String {
        let mut csv = String::from(
            "epoch,step,lr,loss,accuracy,validation_loss,validation_accuracy,seconds,samples_per_second\n",
        );
        for e in &self.epochs {
            let optional = |v: Option<f64>| v.map(|v| format!("{v:.6}")).unwrap_or_default();
            csv += &format!(
                "{},{},{},{:.6},{:.6},{},{},{:.3},{:.1}\n",
                e.epoch,
                e.step,
                e.lr,
                e.loss,
                e.accuracy,
                optional(e.validation_loss),
                optional(e.validation_accuracy),
                e.seconds,
                e.samples_per_second
            );
        }
        csv
    }
}

/// A run at the end of an epoch.
pub struct EpochEnd<'a> {
    /// Of all epochs up to this one.
    pub history: &'a History,
    /// This epoch.
    pub epoch: &'a Epoch,
    /// On the validation samples, if this epoch was evaluated.
    pub evaluation: Option<&'a Evaluation>,
    /// Makes a checkpoint of the run as it is.
    pub checkpoint: &'a dyn Fn() -> Checkpoint,
}

/// Watches a run. The library itself prints nothing.
pub trait Observer {
    /// After each step, and after [`on_epoch`](Self::on_epoch) where it was an epoch's last; `Break` ends
    /// the run there, with a checkpoint if it writes any.
    fn on_step(&mut self, progress: &Progress) -> ControlFlow<()> {
        let _ = progress;
        ControlFlow::Continue(())
    }

    /// After each epoch.
    ///
    /// # Errors
    /// Ends the run with this error, before its own checkpoint of the epoch is written.
    fn on_epoch(&mut self, end: &EpochEnd<'_>) -> Result<(), HostError> {
        let _ = end;
        Ok(())
    }
}

/// Watches nothing.
impl Observer for () {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn csv_has_a_line_per_epoch_and_toml_keeps_all_digits() {
        let first = Epoch {
            epoch: 1,
            step: 10,
            lr: 0.1 + 0.2,
            loss: 1.0 / 3.0,
            accuracy: 0.5,
            validation_loss: None,
            validation_accuracy: None,
            seconds: 2.0,
            samples_per_second: 64.0,
        };
        let second = Epoch { epoch: 2, validation_loss: Some(0.25), validation_accuracy: Some(0.75), ..first };
        let history = History { epochs: vec![first, second] };
        let csv = history.to_csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[1], "1,10,0.3,0.333333,0.500000,,,2.000,64.0");
        assert_eq!(lines[2], "2,10,0.3,0.333333,0.500000,0.250000,0.750000,2.000,64.0");
        assert!(lines.iter().all(|l| l.split(',').count() == 9));
        let text = toml::to_string(&history).unwrap();
        assert_eq!(toml::from_str::<History>(&text).unwrap(), history);
    }
}
