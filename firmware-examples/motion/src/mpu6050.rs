//! The MPU-6050, an accelerometer and gyroscope on an I2C bus: 50 samples a second into its FIFO, which
//! holds 1.7 s of them. So nothing is lost while a model runs, and no interrupt is needed.
//!
//! Registers, the bits of USER_CTRL and PWR_MGMT_1 and the order of a sample in the FIFO are those of "MPU-6000 and
//! MPU-6050 Register Map and Descriptions", RM-MPU-6000A-00, revision 4.2; the low pass and the ranges are those that
//! other drivers use.

use crate::Sample;
use embedded_hal::i2c::I2c;

/// The address on the bus, with the pin AD0 low.
const ADDRESS: u8 = 0x68;

const SMPLRT_DIV: u8 = 0x19;
const CONFIG: u8 = 0x1a;
const GYRO_CONFIG: u8 = 0x1b;
const ACCEL_CONFIG: u8 = 0x1c;
const FIFO_EN: u8 = 0x23;
const USER_CTRL: u8 = 0x6a;
const PWR_MGMT_1: u8 = 0x6b;
const FIFO_COUNT: u8 = 0x72;
const FIFO_R_W: u8 = 0x74;
const WHO_AM_I: u8 = 0x75;

/// What WHO_AM_I reads.
const IDENTITY: u8 = 0x68;

/// Bytes the FIFO holds.
const FIFO_BYTES: usize = 1024;

/// Bytes of a sample in the FIFO: six numbers, high byte first, acceleration before angular rate.
const SAMPLE_BYTES: usize = 12;

/// The sensor.
pub struct Mpu6050<B> {
    bus: B,
    measures: bool,
}

/// Why there is no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error<E> {
    /// The bus failed; without a sensor on it, nobody acknowledges.
    Bus(E),
    /// Another chip answers: what its WHO_AM_I reads.
    NotAnMpu6050(u8),
    /// Nobody took the samples in time: the FIFO is full.
    Overrun,
}

impl<B: I2c> Mpu6050<B> {
    /// The sensor on `bus`.
    pub fn new(bus: B) -> Self {
        Self { bus, measures: false }
    }

    /// The oldest sample in the FIFO, if there is one. The first call starts the sensor, as does the first after an
    /// error: it may have been unplugged.
    ///
    /// # Errors
    /// If the bus fails, another chip answers, or samples were lost.
    pub fn sample(&mut self) -> Result<Option<Sample>, Error<B::Error>> {
        if !self.measures {
            self.start()?;
        }
        self.measures = false;
        let sample = self.next()?;
        self.measures = true;
        Ok(sample)
    }

    /// Starts to measure, with an empty FIFO: 50 Hz, up to 8 g and 2000 degrees per second.
    fn start(&mut self) -> Result<(), Error<B::Error>> {
        let [identity] = self.read(WHO_AM_I)?;
        if identity != IDENTITY {
            return Err(Error::NotAnMpu6050(identity));
        }
        self.write(PWR_MGMT_1, 1)?; // awake, by the clock of the gyroscope
        self.write(CONFIG, 4)?; // low pass of 20 Hz, 1 kHz before the divider
        self.write(SMPLRT_DIV, 19)?; // 1 kHz / (1 + 19)
        self.write(GYRO_CONFIG, 3 << 3)?; // 2000 degrees per second
        self.write(ACCEL_CONFIG, 2 << 3)?; // 8 g
        self.write(FIFO_EN, 0x78)?; // acceleration and all three rates
        self.write(USER_CTRL, 1 << 2)?; // FIFO emptied, which needs it disabled
        self.write(USER_CTRL, 1 << 6) // and enabled
    }

    fn next(&mut self) -> Result<Option<Sample>, Error<B::Error>> {
        let waiting = usize::from(u16::from_be_bytes(self.read(FIFO_COUNT)?));
        // The next sample would overwrite the start of the oldest, perhaps while that is read.
        if waiting + SAMPLE_BYTES > FIFO_BYTES {
            return Err(Error::Overrun);
        }
        if waiting < SAMPLE_BYTES {
            return Ok(None);
        }
        let bytes: [u8; SAMPLE_BYTES] = self.read(FIFO_R_W)?;
        Ok(Some(core::array::from_fn(|i| {
            let raw = i16::from_be_bytes([bytes[2 * i], bytes[2 * i + 1]]);
            // 4096 per g to 500 per g; 16.4 per degree per second to 2.
            if i < 3 { scale(raw, 125, 1024) } else { scale(raw, 5, 41) }
        })))
    }

    fn read<const N: usize>(&mut self, register: u8) -> Result<[u8; N], Error<B::Error>> {
        let mut bytes = [0; N];
        self.bus.write_read(ADDRESS, &[register], &mut bytes).map_err(Error::Bus)?;
        Ok(bytes)
    }

    fn write(&mut self, register: u8, value: u8) -> Result<(), Error<B::Error>> {
        self.bus.write(ADDRESS, &[register, value]).map_err(Error::Bus)
    }
}

/// `raw times / by`, to the nearest, where `times` is at most `by`.
fn scale(raw: i16, times: i32, by: i32) -> i16 {
    (i32::from(raw) * times + by / 2).div_euclid(by) as i16
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use super::*;
    use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
    use std::vec::Vec;

    /// What a sensor is told when it starts.
    pub(crate) fn start() -> Vec<Transaction> {
        let mut bus = std::vec![Transaction::write_read(0x68, std::vec![0x75], std::vec![0x68])];
        for told in [[0x6b, 1], [0x1a, 4], [0x19, 19], [0x1b, 0x18], [0x1c, 0x10], [0x23, 0x78]] {
            bus.push(Transaction::write(0x68, told.to_vec()));
        }
        bus.extend([0x04, 0x40].map(|bits| Transaction::write(0x68, std::vec![0x6a, bits])));
        bus
    }

    pub(crate) fn count(bytes: u16) -> Transaction {
        Transaction::write_read(0x68, std::vec![0x72], bytes.to_be_bytes().to_vec())
    }

    pub(crate) fn raw(numbers: [i16; 6]) -> Transaction {
        let bytes = numbers.into_iter().flat_map(i16::to_be_bytes).collect();
        Transaction::write_read(0x68, std::vec![0x74], bytes)
    }

    #[test]
    fn samples_have_the_units_of_the_model() {
        let mut bus = start();
        bus.extend([count(24), raw([4096, -4096, 2048, 16, -164, 1640])]);
        bus.extend([count(12), raw([i16::MAX, i16::MIN, 0, i16::MAX, i16::MIN, 4])]);
        bus.push(count(11));
        let mut bus = Mock::new(&bus);
        let mut sensor = Mpu6050::new(bus.clone());
        // 1 g, -1 g, half a g; 1, -10 and 100 degrees per second
        assert_eq!(sensor.sample(), Ok(Some([500, -500, 250, 2, -20, 200])));
        assert_eq!(sensor.sample(), Ok(Some([4000, -4000, 0, 3996, -3996, 0])));
        assert_eq!(sensor.sample(), Ok(None));
        bus.done();
    }

    #[test]
    fn another_chip_and_no_chip_are_refused() {
        let other = Transaction::write_read(0x68, std::vec![0x75], std::vec![0x70]);
        let mut bus = Mock::new(&[other]);
        assert_eq!(Mpu6050::new(bus.clone()).sample(), Err(Error::NotAnMpu6050(0x70)));
        bus.done();
        let nobody = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
        let none = Transaction::write_read(0x68, std::vec![0x75], std::vec![0]).with_error(nobody);
        let mut bus = Mock::new(&[none]);
        assert_eq!(Mpu6050::new(bus.clone()).sample(), Err(Error::Bus(nobody)));
        bus.done();
    }

    #[test]
    fn a_full_fifo_begins_anew() {
        let mut bus = start();
        bus.extend([count(1020)]);
        bus.extend(start());
        bus.extend([count(1008), raw([0; 6])]);
        let mut bus = Mock::new(&bus);
        let mut sensor = Mpu6050::new(bus.clone());
        assert_eq!(sensor.sample(), Err(Error::Overrun));
        assert_eq!(sensor.sample(), Ok(Some([0; 6])));
        bus.done();
    }
}
