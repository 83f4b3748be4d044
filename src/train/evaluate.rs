//! Evaluation: an inference Program over the trained parameters, and what its scores are worth.

use super::checkpoint::Checkpoint;
use super::samples::Samples;
use super::step::{Compiled, params};
use super::workers::Workers;
use crate::engine::{Buffer, Executor, Memory, elements, elements_mut};
use crate::error::HostError;
use crate::model::Built;
use crate::ops::Tick;
use crate::program::{ParamLayout, Space, TensorId};
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// How well scores predict labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    classes: usize,
    /// Sum of the cross-entropies.
    loss: f64,
    /// How often label `i` was classified as `j`, at `i * classes + j`.
    confusion: Vec<u64>,
}

/// What the scores of one sample are worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The class it is of.
    pub label: u32,
    /// The class with the largest score; the first of equals.
    pub class: usize,
    /// The cross-entropy, without label smoothing.
    pub loss: f64,
}

impl Judged {
    /// A sample with these scores (logits) and this label, which is below their number.
    pub fn new(logits: &[f32], label: u32) -> Self {
        let max = logits.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(f64::from(z)));
        let sum: f64 = logits.iter().map(|&z| libm::exp(f64::from(z) - max)).sum();
        let loss = libm::log(sum) + max - f64::from(logits[label as usize]);
        Self { label, class: argmax(logits), loss }
    }
}

impl Evaluation {
    /// Of no samples yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, loss: 0.0, confusion: vec![0; classes * classes] }
    }

    /// Counts a sample.
    pub fn add(&mut self, sample: &Judged) {
        self.loss += sample.loss;
        self.confusion[sample.label as usize * self.classes + sample.class] += 1;
    }

    /// Number of samples.
    pub fn samples(&self) -> u64 {
        self.confusion.iter().sum()
    }

    /// Mean cross-entropy, without label smoothing; NaN of no samples.
    pub fn loss(&self) -> f64 {
        self.loss / self.samples() as f64
    }

    /// Samples that were classified correctly.
    pub fn correct(&self) -> u64 {
        self.confusion.iter().step_by(self.classes + 1).sum()
    }

    /// Part of the samples that were classified correctly; NaN of no samples.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.samples() as f64
    }

    /// Row `label` of the confusion matrix: how often that label was classified as each class.
    pub fn confusion(&self, label: usize) -> &[u64] {
        &self.confusion[label * self.classes..][..self.classes]
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Part of the samples of a class that were classified as it; `None` where it has no samples.
    pub fn recall(&self, class: usize) -> Option<f64> {
        let all: u64 = self.confusion(class).iter().sum();
        (all > 0).then(|| self.confusion(class)[class] as f64 / all as f64)
    }

    /// Part of the samples classified as a class that are of it; `None` where there are none.
    pub fn precision(&self, class: usize) -> Option<f64> {
        let all: u64 = (0..self.classes).map(|label| self.confusion(label)[class]).sum();
        (all > 0).then(|| self.confusion(class)[class] as f64 / all as f64)
    }
}

/// The class with the largest score; the first of equals.
pub(super) fn argmax(scores: &[f32]) -> usize {
    let best =
        scores.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &s)| if s > best.1 { (i, s) } else { best });
    best.0
}

/// Runs a model over samples, a fixed batch at a time, on all threads.
#[derive(Debug)]
pub struct Evaluator {
    compiled: Compiled,
    layout: ParamLayout,
    input: TensorId,
    logits: TensorId,
}

impl Evaluator {
    /// Of what `built` (made for inference) computes.
    ///
    /// # Errors
    /// As [`Compiled::new`].
    pub fn new(built: Built) -> Result<Self, HostError> {
        let Built { program, input, logits, .. } = built;
        let layout = ParamLayout::new(&program);
        Ok(Self { compiled: Compiled::new(program)?, layout, input, logits })
    }

    /// Names, shapes and places of the parameters and statistics.
    pub(super) fn signature(&self) -> Vec<(String, Vec<usize>, usize)> {
        params(&self.compiled.program, &self.layout).map(|(t, at)| (t.name.clone(), t.shape.clone(), at)).collect()
    }

    /// The parameters of a checkpoint, laid out as the Program needs them: averaged where the run that
    /// wrote it averaged them.
    ///
    /// # Errors
    /// A tensor that is missing, is one too many, has another shape or is not finite.
    pub fn params(&self, checkpoint: &Checkpoint) -> Result<Buffer, HostError> {
        let mut buffer = Buffer::zeroed(self.layout.bytes());
        let values = buffer.elements_mut();
        let params = || params(&self.compiled.program, &self.layout);
        for (t, at) in params() {
            checkpoint.copy_weights(&t.name, &t.shape, &mut values[at..][..t.len()])?;
        }
        checkpoint.check_no_more(|name| params().any(|(t, _)| t.name == name))?;
        Ok(buffer)
    }

    /// Checks that samples fit the model.
    pub(super) fn check(&self, samples: &Samples<'_>) -> Result<(), HostError> {
        let program = &self.compiled.program;
        let &[batch, h, w, c] = &program.tensor(self.input).shape[..] else {
            return Err(HostError::new("inference program", "its input is not [batch, h, w, c]", ""));
        };
        samples.check([h, w, c], program.tensor(self.logits).len() / batch)
    }

    /// Evaluates all `samples`.
    ///
    /// # Errors
    /// Samples that do not fit the model, or a sample that is not finite.
    pub fn evaluate(
        &self,
        params: &Buffer,
        samples: &Samples<'_>,
        workers: &mut Workers,
    ) -> Result<Evaluation, HostError> {
        self.check(samples)?;
        let all: Vec<u32> = (0..samples.len as u32).collect();
        self.evaluate_some(params, samples, &all, workers)
    }

    /// Evaluates the samples with these indices.
    pub(super) fn evaluate_some(
        &self,
        params: &Buffer,
        samples: &Samples<'_>,
        indices: &[u32],
        workers: &mut Workers,
    ) -> Result<Evaluation, HostError> {
        let view = self.compiled.view();
        let batch = view.tensor(self.input.index()).dims[0];
        let classes = self.compiled.program.tensor(self.logits).len() / batch;
        let mut parts: Vec<(&[u32], Vec<Judged>)> = indices.chunks(batch).map(|chunk| (chunk, Vec::new())).collect();
        workers.reserve(view.size(Space::Arena));
        workers.each(&mut parts, |arena, _, (chunk, part)| {
            let memory = Memory::new(arena).with_shared(Space::Params, params.bytes());
            let mut executor: Executor<'_> =
                Executor::new(view, memory).map_err(|e| HostError::new("evaluation", e.to_string(), ""))?;
            let values: &mut [f32] = elements_mut(executor.tensor_mut(self.input.index()).unwrap_or_default());
            samples.gather(chunk, values)?;
            executor.run(&Tick::default());
            let logits: &[f32] = elements(executor.tensor(self.logits.index()));
            let scored = logits.chunks_exact(classes).zip(*chunk);
            part.extend(scored.map(|(logits, &i)| Judged::new(logits, samples.labels[i as usize])));
            Ok(())
        })?;
        let mut all = Evaluation::new(classes);
        parts.iter().flat_map(|(_, part)| part).for_each(|sample| all.add(sample));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_right_and_what_was_confused() {
        let mut e = Evaluation::new(3);
        for (logits, label) in [([2.0, 1.0, 0.0], 0), ([0.0, 1.0, 0.0], 0), ([0.0, 1.0, 0.0], 1), ([5.0; 3], 1)] {
            e.add(&Judged::new(&logits, label));
        }
        assert_eq!((e.samples(), e.correct(), e.accuracy()), (4, 2, 0.5));
        assert_eq!((e.confusion(0), e.confusion(1)), (&[1, 1, 0][..], &[1, 1, 0][..]));
        assert_eq!((e.recall(0), e.recall(2)), (Some(0.5), None));
        assert_eq!((e.precision(1), e.precision(2)), (Some(0.5), None));
        let truth = [
            (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln(),
            (2.0 + 1.0f64.exp()).ln(),
            (2.0 + 1.0f64.exp()).ln() - 1.0,
            3.0f64.ln(),
        ];
        assert!((e.loss() - truth.iter().sum::<f64>() / 4.0).abs() < 1e-12);
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0]), 1);
    }
}
