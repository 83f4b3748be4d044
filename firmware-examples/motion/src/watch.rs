//! The window of the sensor's latest samples.

use crate::{Error, HOP, Mpu6050, Sample, WINDOW};
use embedded_hal::i2c::I2c;

/// A sensor and its latest samples, oldest first.
pub struct Watch<B> {
    sensor: Mpu6050<B>,
    samples: [Sample; WINDOW],
    len: usize,
}

impl<B: I2c> Watch<B> {
    /// Watches the sensor on `bus`, from the first call of [`window`](Self::window) on.
    pub fn new(bus: B) -> Self {
        Self { sensor: Mpu6050::new(bus), samples: [[0; 6]; WINDOW], len: 0 }
    }

    /// Takes what the sensor has measured, up to the end of the next window; that one, if it is complete. To be
    /// called at the sensor's rate, sooner or later: the sensor keeps what is not taken.
    ///
    /// # Errors
    /// If the bus fails, another chip answers, or samples were lost. The next call starts the sensor and the window
    /// anew.
    pub fn window(&mut self) -> Result<Option<&[Sample; WINDOW]>, Error<B::Error>> {
        if self.len == WINDOW {
            self.samples.copy_within(HOP.., 0);
            self.len -= HOP;
        }
        while self.len < WINDOW {
            match self.sensor.sample() {
                Ok(Some(sample)) => self.samples[self.len] = sample,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.len = 0;
                    return Err(error);
                }
            }
            self.len += 1;
        }
        Ok(Some(&self.samples))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::mpu6050::tests::{count, raw, start};
    use crate::{ARENA, EXERCISES, RECORDING};
    use embedded_hal_mock::eh1::i2c::Mock;
    use softedge::engine::Engine;

    /// What the sensor would have to read for a sample of the recording.
    fn counts(sample: Sample) -> [i16; 6] {
        let scaled = |i: usize| f64::from(sample[i]) * if i < 3 { 4096.0 / 500.0 } else { 16.4 / 2.0 };
        core::array::from_fn(|i| scaled(i).round() as i16)
    }

    #[test]
    fn a_recorded_exercise_is_recognised_from_the_bus() {
        let mut bus = start();
        bus.extend(RECORDING.into_iter().flat_map(|sample| [count(12), raw(counts(sample))]));
        let mut bus = Mock::new(&bus);
        let mut watch = Watch::new(bus.clone());
        let mut engine = Engine::new(&EXERCISES, ARENA.take().unwrap());
        let window = watch.window().unwrap().unwrap();
        assert_eq!(window, &RECORDING);
        engine.input().copy_from_slice(window.as_flattened());
        let scores = engine.run();
        assert_eq!(scores.label(scores.argmax()), Some("upright row"));
        bus.done();
    }

    #[test]
    fn windows_overlap_and_begin_anew_where_samples_are_lost() {
        let sample = |i: usize| [8 * i as i16, 0, 0, 0, 0, 0];
        let measured = |i: usize| [count(12), raw(sample(i))];
        let mut bus = start();
        bus.extend((0..100).flat_map(measured));
        bus.push(count(0));
        bus.extend((100..WINDOW + HOP).flat_map(measured));
        bus.extend((0..5).flat_map(measured));
        bus.push(count(1024));
        bus.extend(start());
        bus.extend((200..200 + WINDOW).flat_map(measured));
        let mut bus = Mock::new(&bus);
        let mut watch = Watch::new(bus.clone());
        let mut first = || watch.window().map(|w| w.map(|w| (w[0][0], w[WINDOW - 1][0])));
        let in_units = |i: usize| (8.0 * i as f64 * 500.0 / 4096.0).round() as i16;
        assert_eq!(first(), Ok(None));
        assert_eq!(first(), Ok(Some((0, in_units(WINDOW - 1)))));
        assert_eq!(first(), Ok(Some((in_units(HOP), in_units(WINDOW + HOP - 1)))));
        assert_eq!(first(), Err(Error::Overrun));
        assert_eq!(first(), Ok(Some((in_units(200), in_units(200 + WINDOW - 1)))));
        bus.done();
    }
}
