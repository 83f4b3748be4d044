//! The bundled data sets: small enough to travel with the library, real enough to learn from.
//!
//! `data/README.md` says where they come from, under which licence, and how they were made.

use super::idx::FASHION_CLASSES;
use super::{Dataset, Raw};
use crate::error::HostError;
use flate2::read::GzDecoder;
use image::ImageFormat;
use std::format;
use std::io::Read;
use std::string::String;
use std::vec::Vec;

const FASHION_TRAIN: &[u8] = include_bytes!("../../data/fashion-mini-train.png");
const FASHION_TEST: &[u8] = include_bytes!("../../data/fashion-mini-test.png");
const WATCH: &[u8] = include_bytes!("../../data/watch.gz");

/// A part of Fashion-MNIST: u8 images of 28 x 28 x 1, ordered by class.
///
/// The first 500 images of each of the 10 classes from the training set, the first 100 of each from
/// the test set.
pub fn fashion_mini() -> Result<(Dataset, Dataset), HostError> {
    Ok((mosaic(FASHION_TRAIN, 500)?, mosaic(FASHION_TEST, 100)?))
}

/// The images of a PNG in which each row of images is a class.
fn mosaic(png: &[u8], per_class: usize) -> Result<Dataset, HostError> {
    const SIDE: usize = 28;
    let damaged = |problem: String| HostError::new("fashion-mini", problem, "the bundled file is damaged: build again");
    let picture = image::load_from_memory_with_format(png, ImageFormat::Png).map_err(|e| damaged(format!("{e}")))?;
    let (classes, width) = (FASHION_CLASSES.len(), per_class * SIDE);
    let picture = picture.into_luma8();
    if picture.dimensions() != (width as u32, (classes * SIDE) as u32) {
        return Err(damaged(format!("{:?} pixels, needed {width} x {}", picture.dimensions(), classes * SIDE)));
    }
    let pixels = picture.into_raw();
    let mut values = Vec::with_capacity(pixels.len());
    for row in pixels.chunks_exact(SIDE * width) {
        for i in 0..per_class {
            row.chunks_exact(width).for_each(|line| values.extend_from_slice(&line[i * SIDE..][..SIDE]));
        }
    }
    let labels = (0..classes as u32).flat_map(|class| core::iter::repeat_n(class, per_class)).collect();
    Dataset::new("fashion-mini", [SIDE, SIDE, 1], Raw::U8(values), labels, FASHION_CLASSES.map(String::from).to_vec())
}

/// Subjects, exercises and sides of the watch recordings, which come in this order.
const SUBJECTS: usize = 10;
const EXERCISES: [&str; 7] = [
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
];
const SIDES: usize = 2;
/// Samples of a recording, and its channels: acceleration x, y, z, angular rate x, y, z.
const LENGTH: usize = 896;
const CHANNELS: usize = 6;
const WINDOW: usize = 128;
const STRIDE: usize = 64;

/// Shoulder exercises seen by a smartwatch: i16 time series of 1 x 128 x 6, 7 classes.
///
/// Channels are acceleration x, y, z (1 = 2 mg = 0.0196 m/s^2) and angular rate x, y, z (1 = 0.5
/// degrees per second), 50 Hz; a window is 2.56 s and starts 1.28 s after the one before. Subjects
/// 1 to 8 are for training, 9 and 10 for the test: it asks how well the model knows strangers. Subjects are
/// [groups](Dataset::groups), so a validation set is of strangers, too.
pub fn watch() -> Result<(Dataset, Dataset), HostError> {
    let recordings = recordings()?;
    let set = |subjects: core::ops::Range<usize>| {
        let (mut values, mut labels, mut people) = (Vec::new(), Vec::new(), Vec::new());
        let per_subject = EXERCISES.len() * SIDES;
        let chosen = recordings.chunks_exact(LENGTH * CHANNELS).enumerate();
        for (i, recording) in chosen.skip(subjects.start * per_subject).take(subjects.len() * per_subject) {
            for start in (0..=LENGTH - WINDOW).step_by(STRIDE) {
                values.extend_from_slice(&recording[start * CHANNELS..][..WINDOW * CHANNELS]);
                labels.push((i / SIDES % EXERCISES.len()) as u32);
                people.push((i / per_subject) as u32);
            }
        }
        let classes = EXERCISES.map(String::from).to_vec();
        Dataset::new("watch", [1, WINDOW, CHANNELS], Raw::I16(values), labels, classes)?.with_groups(people)
    };
    Ok((set(0..8)?, set(8..SUBJECTS)?))
}

/// The recordings `[subject, exercise, side, sample, channel]`.
fn recordings() -> Result<Vec<i16>, HostError> {
    const STEPS: usize = SUBJECTS * EXERCISES.len() * SIDES * LENGTH;
    let damaged = |problem: String| HostError::new("watch", problem, "the bundled file is damaged: build again");
    let mut bytes = Vec::new();
    GzDecoder::new(WATCH).read_to_end(&mut bytes).map_err(|e| damaged(format!("{e}")))?;
    if bytes.len() != 2 * STEPS * CHANNELS {
        return Err(damaged(format!("{} bytes, needed {}", bytes.len(), 2 * STEPS * CHANNELS)));
    }
    // Low bytes, then high bytes, of the second differences of channel after channel, with their
    // sign in the lowest bit.
    let (low, high) = bytes.split_at(STEPS * CHANNELS);
    let mut values = std::vec![0i16; STEPS * CHANNELS];
    for (at, (&low, &high)) in low.iter().zip(high).enumerate() {
        let (channel, step) = (at / STEPS, at % STEPS);
        let zigzag = u16::from_le_bytes([low, high]);
        let second = (zigzag >> 1) as i16 ^ -((zigzag & 1) as i16);
        let previous = |back: usize| match step % LENGTH {
            within if within < back => 0,
            _ => values[(step - back) * CHANNELS + channel],
        };
        // v[t] = 2 v[t-1] - v[t-2] + second difference
        let value = second.wrapping_add(previous(1).wrapping_mul(2)).wrapping_sub(previous(2));
        values[step * CHANNELS + channel] = value;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Options, open};
    use sha2::{Digest, Sha256};

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn fashion_mini_is_the_documented_one() {
        let (train, test) = open("fashion-mini", &Options::default()).unwrap();
        for (set, per_class, hash) in [
            (train, 500, "4140a00a749e1f61e28928789f0c1a40d186ebcb94e163107591e25173a52f72"),
            (test, 100, "87a8c47fe141ad7de61e1517e5478a1e5dfefafa9a8b3a34b8f39e1d92c4ad0d"),
        ] {
            let Raw::U8(pixels) = &set.raw else { panic!("pixels are bytes") };
            assert_eq!(sha256(pixels), hash);
            assert_eq!((set.shape, set.len()), ([28, 28, 1], 10 * per_class));
            assert!((0..set.len()).all(|i| set.labels[i] as usize == i / per_class));
        }
    }

    #[test]
    fn watch_is_the_documented_one() {
        let bytes: Vec<u8> = recordings().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), "fb4ab9d0aa1d55f13d8e204bdf1fe69e1d1e39b7fd31d20ba94504e9f420b4b1");
        let (train, test) = open("watch", &Options::default()).unwrap();
        for (set, windows) in [(&train, 8 * 26), (&test, 2 * 26)] {
            assert_eq!((set.shape, set.classes.len()), ([1, 128, 6], 7));
            assert!(set.groups.chunks(182).all(|person| person.iter().all(|p| *p == person[0])));
            for class in 0..7 {
                assert_eq!(set.labels.iter().filter(|&&label| label == class).count(), windows);
            }
        }
        // Gravity: the acceleration of a resting arm is 1 g = 500.
        let (mean, std) = train.moments();
        let norm: f32 = (0..3).map(|c| mean[c] * mean[c] + std[c] * std[c]).sum();
        assert!((450.0..650.0).contains(&norm.sqrt()), "{mean:?} {std:?}");
        // Windows overlap by half.
        assert_eq!(train.raw_bytes(0)[64 * 12..], train.raw_bytes(1)[..64 * 12]);
    }
}
