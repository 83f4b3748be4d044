//! A data set in memory.

use crate::error::HostError;
use crate::math::random::Stream;
use std::borrow::{Cow, ToOwned};
use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// The values of a data set, sample after sample, each channels-last `[h, w, c]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Pixels.
    U8(Vec<u8>),
    /// Sensor readings.
    I16(Vec<i16>),
    /// Anything else; finite.
    F32(Vec<f32>),
}

impl Raw {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Raw::U8(v) => v.len(),
            Raw::I16(v) => v.len(),
            Raw::F32(v) => v.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the element type.
    pub fn kind(&self) -> &'static str {
        match self {
            Raw::U8(_) => "u8",
            Raw::I16(_) => "i16",
            Raw::F32(_) => "f32",
        }
    }

    /// The samples with these indices, `width` values each.
    fn gather(&self, width: usize, indices: &[usize]) -> Self {
        fn gather<T: Copy>(v: &[T], width: usize, indices: &[usize]) -> Vec<T> {
            indices.iter().flat_map(|&i| &v[i * width..][..width]).copied().collect()
        }
        match self {
            Raw::U8(v) => Raw::U8(gather(v, width, indices)),
            Raw::I16(v) => Raw::I16(gather(v, width, indices)),
            Raw::F32(v) => Raw::F32(gather(v, width, indices)),
        }
    }
}

/// Labelled samples of one shape. [`Dataset::new`] checks that the fields fit each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// What the set is called in reports.
    pub name: String,
    /// Height, width, channels. A time series is `1 x length x channels`, a vector `1 x 1 x features`.
    pub shape: [usize; 3],
    /// The values of all samples as they were stored, without normalisation.
    pub raw: Raw,
    /// The class of each sample, an index into `classes`.
    pub labels: Vec<u32>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// What each sample comes from (a person, a recording), where samples of one group tell about each
    /// other: a group is not split. Empty where every sample stands alone.
    pub groups: Vec<u32>,
}

impl Dataset {
    /// A data set whose parts fit each other.
    ///
    /// # Errors
    ///
    /// No samples; a number of values that is not samples x shape; a label that names no class; a
    /// value that is not finite.
    pub fn new(
        name: impl Into<String>,
        shape: [usize; 3],
        raw: Raw,
        labels: Vec<u32>,
        classes: Vec<String>,
    ) -> Result<Self, HostError> {
        let set = Self { name: name.into(), shape, raw, labels, classes, groups: Vec::new() };
        let fail = |problem: String, remedy: &str| Err(HostError::new(&set.name, problem, remedy));
        let [h, w, c] = shape;
        if set.is_empty() {
            return fail("no samples".to_owned(), "give it at least one");
        }
        let needed = super::product(&[set.len(), h, w, c]);
        if needed == Some(0) || needed != Some(set.raw.len()) {
            let (samples, found) = (set.len(), set.raw.len());
            return fail(
                format!("{samples} labels and shape {h} x {w} x {c}, but {found} values"),
                "give every sample one label and h x w x c values",
            );
        }
        if let Some(i) = set.labels.iter().position(|&label| label as usize >= set.classes.len()) {
            let (label, classes) = (set.labels[i], set.classes.len());
            return fail(
                format!("sample {i} has label {label}, and there are {classes} classes"),
                "labels count from 0 and stay below the number of classes",
            );
        }
        if let Raw::F32(values) = &set.raw
            && let Some(at) = values.iter().position(|v| !v.is_finite())
        {
            let (i, within, value) = (at / set.width(), at % set.width(), values[at]);
            return fail(
                format!("value {within} of sample {i} is {value}"),
                "remove or fill in samples that are not finite",
            );
        }
        Ok(set)
    }

    /// The same samples, of these groups.
    ///
    /// # Errors
    ///
    /// Not one group for each sample.
    pub fn with_groups(self, groups: Vec<u32>) -> Result<Self, HostError> {
        if groups.len() != self.len() {
            let problem = format!("{} groups and {} samples", groups.len(), self.len());
            return Err(HostError::new(self.name, problem, "give every sample a group"));
        }
        Ok(Self { groups, ..self })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values of one sample, `h * w * c`.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// Writes sample `i` to `out`, `[h, w, c]`: the raw values as f32.
    ///
    /// # Panics
    ///
    /// If there is no sample `i` or `out` has not [`width`](Self::width) elements.
    pub fn sample_f32(&self, i: usize, out: &mut [f32]) {
        let width = self.width();
        assert_eq!(out.len(), width, "a sample has {width} values");
        let range = i * width..(i + 1) * width;
        match &self.raw {
            Raw::U8(v) => out.iter_mut().zip(&v[range]).for_each(|(o, &v)| *o = f32::from(v)),
            Raw::I16(v) => out.iter_mut().zip(&v[range]).for_each(|(o, &v)| *o = f32::from(v)),
            Raw::F32(v) => out.copy_from_slice(&v[range]),
        }
    }

    /// Sample `i` as stored, little-endian: what an engine that takes this element type reads.
    ///
    /// # Panics
    ///
    /// If there is no sample `i`.
    pub fn raw_bytes(&self, i: usize) -> Cow<'_, [u8]> {
        let width = self.width();
        let range = i * width..(i + 1) * width;
        match &self.raw {
            Raw::U8(v) => Cow::Borrowed(&v[range]),
            Raw::I16(v) => v[range].iter().flat_map(|v| v.to_le_bytes()).collect(),
            Raw::F32(v) => v[range].iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// Mean and standard deviation (of the population) of each channel over all samples.
    ///
    /// Two passes in f64, in the order of storage. The deviation of a constant channel is 0.
    pub fn moments(&self) -> (Vec<f32>, Vec<f32>) {
        let channels = self.shape[2];
        let per_channel = (self.raw.len() / channels) as f64;
        let average = |term: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0f64; channels];
            let mut sample = vec![0.0f32; self.width()];
            for i in 0..self.len() {
                self.sample_f32(i, &mut sample);
                for values in sample.chunks_exact(channels) {
                    for (channel, (sum, &value)) in sums.iter_mut().zip(values).enumerate() {
                        *sum += term(channel, f64::from(value));
                    }
                }
            }
            sums.iter().map(|sum| sum / per_channel).collect()
        };
        let mean = average(&|_, value| value);
        let variance = average(&|channel, value| (value - mean[channel]).powi(2));
        (mean.iter().map(|&m| m as f32).collect(), variance.iter().map(|v| v.sqrt() as f32).collect())
    }

    /// The samples with these indices, in this order; an index may repeat.
    ///
    /// # Errors
    ///
    /// No index, or one that is no sample.
    pub fn subset(&self, indices: &[usize]) -> Result<Self, HostError> {
        let samples = self.len();
        if let Some(i) = indices.iter().find(|&&i| i >= samples) {
            return Err(HostError::new(&self.name, format!("sample {i} of {samples}"), "indices count from 0"));
        }
        let set = Self::new(
            self.name.clone(),
            self.shape,
            self.raw.gather(self.width(), indices),
            indices.iter().map(|&i| self.labels[i]).collect(),
            self.classes.clone(),
        )?;
        let groups = indices.iter().filter_map(|&i| self.groups.get(i).copied()).collect();
        Ok(Self { groups, ..set })
    }

    /// These samples, then those of `other`.
    ///
    /// # Errors
    ///
    /// Another shape, element type or classes.
    pub fn join(mut self, other: &Self) -> Result<Self, HostError> {
        self.check_alike("training", other, "test", &self.name)?;
        match (&mut self.raw, &other.raw) {
            (Raw::U8(all), Raw::U8(more)) => all.extend(more),
            (Raw::I16(all), Raw::I16(more)) => all.extend(more),
            (Raw::F32(all), Raw::F32(more)) => all.extend(more),
            _ => unreachable!("checked to be of one type"),
        }
        self.labels.extend(&other.labels);
        // Groups of two sets have nothing to do with each other.
        let next = self.groups.iter().max().map_or(0, |last| last + 1);
        if !self.groups.is_empty() && !other.groups.is_empty() {
            self.groups.extend(other.groups.iter().map(|group| next + group));
        } else {
            self.groups.clear();
        }
        Ok(self)
    }

    /// The same samples with the classes of a model; see [`map_classes`].
    ///
    /// # Errors
    ///
    /// A class that the model does not have.
    pub fn with_classes(mut self, classes: &[String]) -> Result<Self, HostError> {
        map_classes(&mut [&mut self], classes)?;
        Ok(self)
    }

    /// Splits off `fraction` of every class, or of the groups where there are any, for validation:
    /// `(train, validation)`.
    ///
    /// The choice depends on `seed` and the labels or groups alone; both parts keep the order of samples. A
    /// class of at least two samples has at least one in each part, a single sample goes to
    /// training; of two groups and more, at least one is in each part.
    ///
    /// # Errors
    ///
    /// A fraction outside `(0, 1)`, no class of two samples, or a single group.
    pub fn split(&self, fraction: f32, seed: u64) -> Result<(Self, Self), HostError> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(HostError::new(
                &self.name,
                format!("cannot hold out a part of {fraction}"),
                "give a fraction between 0 and 1, such as 0.2",
            ));
        }
        // Samples that stay together, in lists of which a part each is held out.
        let lists: Vec<Vec<Vec<usize>>> = if self.groups.is_empty() {
            let mut by_class = vec![Vec::new(); self.classes.len()];
            self.labels.iter().enumerate().for_each(|(i, &label)| by_class[label as usize].push(vec![i]));
            by_class
        } else {
            let mut groups = BTreeMap::new();
            self.groups.iter().enumerate().for_each(|(i, &group)| groups.entry(group).or_insert_with(Vec::new).push(i));
            vec![groups.into_values().collect()]
        };
        let mut held_out = vec![false; self.len()];
        for (list, mut members) in lists.into_iter().enumerate() {
            if members.len() < 2 {
                continue;
            }
            let count = ((members.len() as f64 * f64::from(fraction)).round() as usize).clamp(1, members.len() - 1);
            let stream = Stream::new(seed).fork(list as u64);
            // The first `count` steps of a Fisher-Yates shuffle.
            for i in 0..count {
                let left = (members.len() - i) as u32;
                members.swap(i, i + stream.below(i as u64, left) as usize);
                members[i].iter().for_each(|&sample| held_out[sample] = true);
            }
        }
        let (validation, train): (Vec<usize>, Vec<usize>) = (0..self.len()).partition(|&i| held_out[i]);
        if validation.is_empty() {
            let (problem, remedy) = if self.groups.is_empty() {
                ("no class has two samples, so none can be held out", "give more samples, or a test set of its own")
            } else {
                ("all samples are of one group, which is not split", "give samples of others, or a test set of its own")
            };
            return Err(HostError::new(&self.name, problem, remedy));
        }
        Ok((self.subset(&train)?, self.subset(&validation)?))
    }

    /// An error at `place` unless `other` has the shape, element type and classes of this set: the parts
    /// `mine` and `theirs` of a source.
    pub(super) fn check_alike(&self, mine: &str, other: &Self, theirs: &str, place: &str) -> Result<(), HostError> {
        let ([h, w, c], [th, tw, tc]) = (self.shape, other.shape);
        let problem = if self.shape != other.shape {
            format!("{mine} samples are {h} x {w} x {c}, {theirs} samples {th} x {tw} x {tc}")
        } else if self.raw.kind() != other.raw.kind() {
            format!("{mine} values are {}, {theirs} values {}", self.raw.kind(), other.raw.kind())
        } else if self.classes != other.classes {
            format!("{mine} has {} classes, {theirs} {}", self.classes.len(), other.classes.len())
        } else {
            return Ok(());
        };
        Err(HostError::new(place, problem, format!("make the {theirs} set like the {mine} set")))
    }
}

/// Gives all parts of a data set the classes of a model: `classes`, in its order.
///
/// A class is found by its name. Where one is not, names count that are spelled alike: numbers by their
/// value (`1.0` is `1`), of others letters, digits and what signs them (`t-shirt_top` is `T-shirt/top`),
/// as long as that tells all classes apart. Or else, if all are numbers and none of the model's is, they
/// are indices from 0. Not every class need have samples, and one without need not be the model's.
///
/// # Errors
///
/// A class that the model does not have; numbers that may count from 1.
pub fn map_classes(parts: &mut [&mut Dataset], classes: &[String]) -> Result<(), HostError> {
    let Some(first) = parts.first() else { return Ok(()) };
    if parts.iter().all(|part| part.classes == classes) {
        return Ok(());
    }
    let (set, mine) = (first.name.clone(), first.classes.clone());
    let mut used = vec![false; mine.len()];
    parts.iter().flat_map(|part| &part.labels).for_each(|&label| used[label as usize] = true);
    let places = places(&mine, &used, classes).map_err(|remedy| {
        let names = mine.iter().zip(&used).filter(|(_, used)| **used).map(|(name, _)| &**name);
        let (has, knows) = (names.collect::<Vec<_>>().join(", "), classes.join(", "));
        HostError::new(set, format!("has the classes {has}, and the model knows {knows}"), remedy)
    })?;
    for part in parts {
        part.labels.iter_mut().for_each(|label| *label = places[*label as usize] as u32);
        part.classes = classes.to_vec();
    }
    Ok(())
}

/// Where the `used` ones of the classes `mine` are among `known`, or what to do about it.
fn places(mine: &[String], used: &[bool], known: &[String]) -> Result<Vec<usize>, &'static str> {
    let found = |of: &[String], among: &[String]| -> Option<Vec<usize>> {
        let place = |name: &String| among.iter().position(|other| other == name);
        of.iter().zip(used).map(|(name, used)| if *used { place(name) } else { Some(0) }).collect()
    };
    let distinct = |names: &[String]| {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == names.len() && !names.contains(&String::new())
    };
    let alike = |names: &[String]| -> Vec<String> { names.iter().map(|name| spelling(name)).collect() };
    let by_spelling = || {
        let (mine, known) = (alike(mine), alike(known));
        if distinct(&mine) && distinct(&known) { found(&mine, &known) } else { None }
    };
    if let Some(places) = found(mine, known).or_else(by_spelling) {
        return Ok(places);
    }
    let names = "name the classes as the model does";
    if known.iter().any(|name| value(name).is_some()) {
        return Err(names);
    }
    let index = |(name, used): (&String, &bool)| match name.parse() {
        _ if !used => Some(0),
        Ok(index) if index < known.len() => Some(index),
        _ => None,
    };
    let indices: Vec<usize> = mine
        .iter()
        .zip(used)
        .map(index)
        .collect::<Option<_>>()
        .ok_or("name the classes as the model does, or number them from 0")?;
    let mut numbers: Vec<usize> = indices.iter().zip(used).filter(|(_, used)| **used).map(|(i, _)| *i).collect();
    numbers.sort_unstable();
    // 1, 2 ... k would be taken for the classes after those that are meant.
    if numbers.len() > 1 && numbers.iter().enumerate().all(|(i, number)| *number == i + 1) {
        return Err(
            "these numbers may count from 1: name the classes as the model does, or number them from 0 with a sample of 0",
        );
    }
    Ok(indices)
}

/// The number that `name` is, if it is one.
fn value(name: &str) -> Option<f64> {
    name.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// `name` without what spelling leaves open. Points and signs that belong to a number are not.
fn spelling(name: &str) -> String {
    if let Some(value) = value(name) {
        // Zero has one sign, and no text starts with `=`.
        return format!("={}", value + 0.0);
    }
    let mut before = ' ';
    let mut chars = name.chars().peekable();
    let mut kept = String::new();
    while let Some(c) = chars.next() {
        let of_number = "+-.,".contains(c) && !before.is_alphabetic() && chars.peek().is_some_and(char::is_ascii_digit);
        if c.is_alphanumeric() || of_number {
            kept.extend(c.to_lowercase());
        }
        before = c;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("{i}")).collect()
    }

    fn set() -> Dataset {
        let raw = Raw::I16(vec![1, -10, 3, -30, 5, 500, 7, 700, 9, 0, 11, 0]);
        Dataset::new("t", [1, 2, 2], raw, vec![0, 1, 0], names(2)).unwrap()
    }

    #[test]
    fn classes_are_matched_by_name_or_number() {
        let named = |names: &[&str]| names.iter().map(|n| String::from(*n)).collect::<Vec<_>>();
        let model = named(&["T-shirt/top", "Bag", "Coat"]);
        let with = |names: &[&str]| Dataset { classes: named(names), ..set() }.with_classes(&model);
        for (names, labels) in [
            (&["T-shirt/top", "Bag", "Coat"][..], [0, 1, 0]),
            (&["coat", "t_shirt top"], [2, 0, 2]),
            (&["0", "1"], [0, 1, 0]),
            (&["2", "0"], [2, 0, 2]),
        ] {
            let set = with(names).unwrap();
            assert_eq!((&set.labels[..], &set.classes), (&labels[..], &model), "{names:?}");
        }
        for names in [&["Bag", "Shirt"], &["0", "3"], &["bag", "Bag "]] {
            let error = with(names).unwrap_err();
            assert!(error.problem.contains(names[1]) && error.problem.contains("T-shirt/top"), "{error}");
        }
        // Names that are numbers, and names that differ in signs alone.
        for (model, names, labels) in
            [(["1", "2", "3"], ["2", "1"], [1, 0, 1]), (["C", "C#", "C++"], ["C++", "C#"], [2, 1, 2])]
        {
            let set = Dataset { classes: named(&names), ..set() }.with_classes(&named(&model)).unwrap();
            assert_eq!(set.labels, labels);
        }
        let ambiguous = Dataset { classes: named(&["c+", "c++"]), ..set() };
        assert!(ambiguous.with_classes(&named(&["C", "C#", "C++"])).is_err());
    }

    #[test]
    fn classes_that_are_numbers_are_matched_by_value() {
        let named = |names: &[&str]| names.iter().map(|n| String::from(*n)).collect::<Vec<_>>();
        // The labels of `set` are 0, 1, 0.
        let places = |names: &[&str], model: &[&str]| {
            let set = Dataset { classes: named(names), ..set() }.with_classes(&named(model));
            set.map(|set| [set.labels[0], set.labels[1]])
        };
        let ten: Vec<String> = (0..=10).map(|i| format!("{i}")).collect();
        let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
        assert_eq!(places(&["1.0", "10.0"], &ten), Ok([1, 10]));
        assert_eq!(places(&["-5", "5"], &["5", "-5", "0"]), Ok([1, 0]));
        assert_eq!(places(&["1", "0.0"], &["3", "-0", "1"]), Ok([2, 1]));
        for (names, model) in [
            (["-5", "5"], ["5", "15", "25"]),
            (["0", "1"], ["1", "2", "3"]),
            (["v1.0", "v2"], ["v10", "v2", "v1"]),
            (["+5 C", "-5 C"], ["5 C", "15 C", "25 C"]),
            // Numbers for names: indices, but not where they may count from 1.
            (["1", "2"], ["cat", "dog", "eel"]),
            (["1", "-2"], ["cat", "dog", "eel"]),
        ] {
            let error = places(&names, &model).unwrap_err();
            assert!(error.problem.contains(names[1]) && !error.remedy.is_empty(), "{error}");
        }
        assert_eq!(places(&["2", "0"], &["cat", "dog", "eel"]), Ok([2, 0]));
        // What only the test set shows counts for both parts, and what no sample has for none.
        let mut train = Dataset { classes: names(3), labels: vec![1, 2, 1], ..set() };
        let mut test = Dataset { classes: names(3), labels: vec![0, 2, 1], ..set() };
        map_classes(&mut [&mut train, &mut test], &named(&["cat", "dog", "eel"])).unwrap();
        assert_eq!((&*train.labels, &*test.classes[2]), (&[1, 2, 1][..], "eel"));
        let set = Dataset { classes: names(3), labels: vec![1, 2, 1], ..set() };
        assert_eq!(set.with_classes(&named(&["2", "1"])).unwrap().labels, [1, 0, 1]);
    }

    #[test]
    fn groups_stay_together() {
        let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
        let groups: Vec<u32> = (0..60).map(|i| i / 7).collect();
        let raw = Raw::U8((0..60).collect());
        let set = Dataset::new("g", [1, 1, 1], raw, labels, names(3)).unwrap().with_groups(groups).unwrap();
        for seed in 0..5 {
            let (train, validation) = set.split(0.3, seed).unwrap();
            assert_eq!(train.len() + validation.len(), 60);
            assert!((14..=21).contains(&validation.len()), "three groups of nine");
            assert!(train.groups.iter().all(|group| !validation.groups.contains(group)));
            assert_eq!(validation.groups.len(), validation.len());
        }
        assert_ne!(set.split(0.3, 0).unwrap(), set.split(0.3, 1).unwrap());
        let twice = set.clone().join(&set).unwrap();
        assert_eq!((twice.groups[59], twice.groups[60], twice.groups[119]), (8, 9, 17));
        assert!(set.clone().with_groups(vec![0; 60]).unwrap().split(0.3, 0).is_err());
        assert!(set.with_groups(vec![0; 59]).is_err());
    }

    #[test]
    fn joined_sets_have_the_samples_of_both() {
        let both = set().join(&set()).unwrap();
        assert_eq!((both.len(), &both.labels[..]), (6, &[0, 1, 0, 0, 1, 0][..]));
        assert_eq!((both.raw_bytes(1), both.raw_bytes(4)), (set().raw_bytes(1), set().raw_bytes(1)));
        assert!(set().join(&Dataset { classes: names(3), ..set() }).is_err());
    }

    #[test]
    fn samples_come_as_f32_and_as_bytes() {
        let set = set();
        let mut sample = [0.0; 4];
        set.sample_f32(1, &mut sample);
        assert_eq!(sample, [5.0, 500.0, 7.0, 700.0]);
        assert_eq!(&*set.raw_bytes(0), [1, 0, 0xF6, 0xFF, 3, 0, 0xE2, 0xFF]);
        let floats = Dataset::new("f", [1, 1, 1], Raw::F32(vec![1.0]), vec![0], names(1)).unwrap();
        assert_eq!(&*floats.raw_bytes(0), 1.0f32.to_le_bytes());
    }

    #[test]
    fn moments_are_per_channel() {
        let (mean, std) = set().moments();
        assert_eq!(mean[0], 6.0);
        let values = [-10.0, -30.0, 500.0, 700.0, 0.0, 0.0f64];
        let m = values.iter().sum::<f64>() / 6.0;
        let v = values.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / 6.0;
        assert_eq!((mean[1], std[1]), (m as f32, v.sqrt() as f32));
        assert_eq!(std[0], (35.0f64 / 3.0).sqrt() as f32);
        let constant = Dataset::new("c", [1, 1, 1], Raw::U8(vec![7; 3]), vec![0; 3], names(1)).unwrap();
        assert_eq!(constant.moments(), (vec![7.0], vec![0.0]));
    }

    #[test]
    fn a_split_is_stratified_disjoint_and_repeatable() {
        let n = 103;
        let labels: Vec<u32> = (0..n).map(|i| if i == 50 { 2 } else { (i % 3 == 0).into() }).collect();
        let raw = Raw::U8((0..n as u8).collect());
        let set = Dataset::new("s", [1, 1, 1], raw, labels, names(3)).unwrap();
        let (train, validation) = set.split(0.25, 7).unwrap();
        assert_eq!(set.split(0.25, 7).unwrap().1, validation);
        assert_ne!(set.split(0.25, 8).unwrap().1, validation);
        let count = |set: &Dataset, class| set.labels.iter().filter(|&&l| l == class).count();
        assert_eq!([0, 1, 2].map(|c| count(&validation, c)), [17, 9, 0]);
        assert_eq!([0, 1, 2].map(|c| count(&train, c)), [50, 26, 1]);
        let (Raw::U8(a), Raw::U8(b)) = (train.raw, validation.raw) else { panic!("the type changed") };
        assert!(a.is_sorted() && b.is_sorted());
        let mut all = [a, b].concat();
        all.sort_unstable();
        assert_eq!(all, (0..n as u8).collect::<Vec<_>>());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let problem =
            |shape, raw, labels: &[u32]| Dataset::new("t", shape, raw, labels.to_vec(), names(2)).unwrap_err().problem;
        assert_eq!(problem([1, 1, 1], Raw::U8(vec![]), &[]), "no samples");
        assert_eq!(problem([1, 2, 1], Raw::U8(vec![0; 3]), &[0, 1]), "2 labels and shape 1 x 2 x 1, but 3 values");
        assert_eq!(problem([0, 2, 1], Raw::U8(vec![]), &[0]), "1 labels and shape 0 x 2 x 1, but 0 values");
        assert_eq!(
            problem([usize::MAX, 2, 2], Raw::U8(vec![0; 4]), &[0]),
            format!("1 labels and shape {} x 2 x 2, but 4 values", usize::MAX)
        );
        assert_eq!(problem([1, 1, 1], Raw::U8(vec![0; 2]), &[0, 2]), "sample 1 has label 2, and there are 2 classes");
        assert_eq!(problem([1, 2, 1], Raw::F32(vec![0.0, 1.0, 2.0, f32::NAN]), &[0, 1]), "value 1 of sample 1 is NaN");
        let set = set();
        assert_eq!(set.subset(&[0, 3]).unwrap_err().problem, "sample 3 of 3");
        for fraction in [0.0, 1.0, -0.5, f32::NAN] {
            assert!(set.split(fraction, 0).is_err());
        }
        let singles = set.subset(&[0, 1]).unwrap();
        assert!(singles.split(0.5, 0).unwrap_err().problem.contains("no class has two"));
    }
}
