//! NumPy arrays: a `.npz` file, or a folder of `.npy` files.
//!
//! Format: a magic, a version, a Python dictionary with element type, order and shape, the values
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use super::{Dataset, Options, Raw, Stored, io_error, name_of, numbered, row_shape};
use crate::error::HostError;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::format;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;
use std::string::String;
use std::vec;
use std::vec::Vec;
use zip::ZipArchive;

/// Names of samples and labels for training, validation and test: as Keras, as MedMNIST and as
/// scikit-learn have them.
const NAMES: [[[&str; 2]; 3]; 3] = [
    [["x_train", "y_train"], ["x_val", "y_val"], ["x_test", "y_test"]],
    [["train_images", "train_labels"], ["val_images", "val_labels"], ["test_images", "test_labels"]],
    [["X", "y"], ["", ""], ["", ""]],
];

/// Whether `folder` has arrays of samples.
pub(super) fn recognises(folder: &Path) -> bool {
    let names = members(folder).unwrap_or_default();
    has_samples(&names).is_some()
}

/// The names of which there are samples for training or for the test.
fn has_samples(members: &[String]) -> Option<&'static [[&'static str; 2]; 3]> {
    NAMES.iter().find(|[train, _, test]| [train, test].iter().any(|[samples, _]| find(members, samples).is_some()))
}

/// The arrays `x_train, y_train, x_test, y_test` and, if there are any, `x_val, y_val` (or
/// `train_images`, `train_labels` and so on) or `X, y` of `path`; or those of the test alone. Names in any
/// case.
///
/// Samples, the first dimension counting them:
///
/// | array | set |
/// |---|---|
/// | `[n, features]` | vectors, or with `options.channels` time series |
/// | `[n, h, w]` of uint8 | grey images |
/// | `[n, length, channels]` of another type | time series |
/// | `[n, h, w, channels]` | images |
///
/// uint8, int16 and float32 stay; float64 is rounded to float32; other integers must fit int16.
/// Labels are integers from 0, `[n]` or `[n, 1]`; classes are named by number.
///
/// # Errors
///
/// A missing array, a damaged file, an element type, order, shape or value that does not fit.
pub fn read(path: &Path, options: &Options) -> Result<Stored, HostError> {
    let members = members(path)?;
    let Some(names) = has_samples(&members) else {
        let found = members.iter().map(|member| stem(member)).collect::<Vec<_>>().join(", ");
        return Err(HostError::new(
            path.display(),
            format!("no array of samples among [{found}]"),
            "name the arrays x_train, y_train, x_test, y_test, or X and y",
        ));
    };
    let load = |name: &str| match find(&members, name) {
        Some(member) => Array::load(path, member),
        None => Err(HostError::new(path.display(), format!("no array {name}"), "samples and labels belong together")),
    };
    let there = names.map(|part| Some(part).filter(|[samples, _]| find(&members, samples).is_some()));
    Stored::of(there, |[samples, labels], classes| {
        let labels = load(labels)?;
        let indices = labels.labels()?;
        let classes = classes.map_or_else(|| numbered(&indices, Path::new(&labels.place)), |c| Ok(c.to_vec()))?;
        load(samples)?.into_dataset(path, options, indices, classes)
    })
}

/// The dimensions and the values of one `.npy` file.
///
/// # Errors
///
/// A damaged file, an element type, order or value that does not fit.
pub fn array(path: &Path) -> Result<(Vec<usize>, Raw), HostError> {
    let file = File::open(path).map_err(|e| io_error(path, &e))?;
    let array = Array::parse(format!("{}", path.display()), BufReader::new(file))?;
    Ok((array.dims.clone(), array.into_raw()?))
}

/// The names of the `.npy` members of an archive or folder.
fn members(path: &Path) -> Result<Vec<String>, HostError> {
    let mut names: Vec<String> = if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|e| io_error(path, &e))?;
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    } else {
        archive(path)?.file_names().flatten().map(Cow::into_owned).collect()
    };
    names.retain(|name| Path::new(name).extension() == Some(OsStr::new("npy")));
    names.sort_unstable();
    Ok(names)
}

fn find<'a>(members: &'a [String], name: &str) -> Option<&'a String> {
    members.iter().find(|member| !name.is_empty() && stem(member).eq_ignore_ascii_case(name))
}

fn stem(member: &str) -> &str {
    member.strip_suffix(".npy").unwrap_or(member)
}

fn archive(path: &Path) -> Result<ZipArchive<BufReader<File>>, HostError> {
    let file = File::open(path).map_err(|e| io_error(path, &e))?;
    ZipArchive::new(BufReader::new(file))
        .map_err(|e| HostError::new(path.display(), format!("not a readable .npz archive: {e}"), "copy the file again"))
}

/// An array as it was stored: row-major, little-endian.
struct Array {
    place: String,
    kind: Kind,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Signed or not, and the number of bytes.
    Integer(bool, usize),
    F32,
    F64,
}

impl Kind {
    fn parse(descr: &str) -> Option<Self> {
        Some(match descr {
            "|i1" => Kind::Integer(true, 1),
            "|u1" => Kind::Integer(false, 1),
            "<i2" => Kind::Integer(true, 2),
            "<u2" => Kind::Integer(false, 2),
            "<i4" => Kind::Integer(true, 4),
            "<u4" => Kind::Integer(false, 4),
            "<i8" => Kind::Integer(true, 8),
            "<u8" => Kind::Integer(false, 8),
            "<f4" => Kind::F32,
            "<f8" => Kind::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Kind::Integer(_, size) => size,
            Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }
}

impl Array {
    fn load(path: &Path, member: &str) -> Result<Self, HostError> {
        let place = format!("{}, array {}", path.display(), stem(member));
        if path.is_dir() {
            let file = path.join(member);
            Self::parse(place, BufReader::new(File::open(&file).map_err(|e| io_error(&file, &e))?))
        } else {
            let mut archive = archive(path)?;
            let file = archive.by_name(member).map_err(|e| {
                HostError::new(&place, format!("cannot be unpacked: {e}"), "save it with numpy.savez_compressed")
            })?;
            Self::parse(place, file)
        }
    }

    fn parse(place: String, mut file: impl Read) -> Result<Self, HostError> {
        let fail = |problem: String, remedy: &str| HostError::new(&place, problem, remedy);
        let failed = |e: std::io::Error| match e.kind() {
            ErrorKind::UnexpectedEof => fail("the array is cut short".into(), "copy or save the file again"),
            _ => fail(format!("cannot be read: {e}"), "copy or save the file again"),
        };
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(failed)?;
        if start[..6] != *b"\x93NUMPY" || !(1..=3).contains(&start[6]) {
            return Err(fail(
                format!("starts with {start:02x?}, which is no NumPy array of version 1 to 3"),
                "save it with numpy.save or numpy.savez",
            ));
        }
        // The length of the dictionary: 2 bytes in version 1, 4 in later ones.
        let mut length = [0; 4];
        file.read_exact(&mut length[..if start[6] == 1 { 2 } else { 4 }]).map_err(failed)?;
        let mut header = Vec::new();
        let length = u32::from_le_bytes(length);
        (&mut file).take(u64::from(length)).read_to_end(&mut header).map_err(failed)?;
        if header.len() != length as usize {
            return Err(failed(ErrorKind::UnexpectedEof.into()));
        }
        let header = String::from_utf8_lossy(&header).into_owned();
        let strange = || fail(format!("header {:?} is not understood", header.trim()), "save it with numpy.save");

        let descr = field(&header, "'descr':").ok_or_else(strange)?;
        let descr = descr.strip_prefix('\'').and_then(|d| d.split_once('\'')).map_or(descr, |(descr, _)| descr);
        let kind = Kind::parse(descr).ok_or_else(|| {
            fail(
                format!("element type {descr} where a little-endian integer, float32 or float64 is needed"),
                "convert it, for instance with .astype(numpy.float32)",
            )
        })?;
        let dims = field(&header, "'shape':").and_then(shape).ok_or_else(strange)?;
        let fortran = field(&header, "'fortran_order':").ok_or_else(strange)?;
        if fortran.starts_with("True") && dims.len() > 1 {
            return Err(fail("stored column by column (fortran_order)".into(), "save numpy.ascontiguousarray of it"));
        }

        let needed = super::product(&dims).and_then(|count| count.checked_mul(kind.size()));
        let needed = needed.ok_or_else(|| fail(format!("absurd shape {dims:?}"), "save the file again"))?;
        // The shape is not trusted with an allocation: memory grows as bytes arrive.
        let mut bytes = Vec::new();
        file.take((needed as u64).saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() != needed {
            let found = if bytes.len() > needed { "more".into() } else { format!("{}", bytes.len()) };
            return Err(fail(
                format!("shape {dims:?} needs {needed} bytes of values, and {found} are there"),
                "copy or save the file again",
            ));
        }
        Ok(Self { place, kind, dims, bytes })
    }

    /// The values, if they are integers.
    fn integers(&self) -> Option<impl Iterator<Item = i128>> {
        let Kind::Integer(signed, size) = self.kind else { return None };
        Some(self.bytes.chunks_exact(size).map(move |bytes| {
            let mut wide = if signed && bytes[size - 1] >= 0x80 { [0xFF; 16] } else { [0; 16] };
            wide[..size].copy_from_slice(bytes);
            i128::from_le_bytes(wide)
        }))
    }

    fn labels(&self) -> Result<Vec<u32>, HostError> {
        let fail = |problem: String, remedy: &str| Err(HostError::new(&self.place, problem, remedy));
        if self.dims.is_empty() || self.dims[1..].iter().any(|&dim| dim != 1) {
            let dims = &self.dims;
            return fail(
                format!("labels of shape {dims:?}"),
                "give one class index per sample, [n]; argmax of one-hot",
            );
        }
        let Some(integers) = self.integers() else {
            return fail("labels are not integers".into(), "convert them with .astype(numpy.int64)");
        };
        let mut labels = Vec::new();
        for (i, label) in integers.enumerate() {
            match u32::try_from(label) {
                Ok(label) => labels.push(label),
                Err(_) => return fail(format!("label {i} is {label}"), "number the classes 0, 1, 2, ..."),
            }
        }
        Ok(labels)
    }

    fn into_dataset(
        self,
        path: &Path,
        options: &Options,
        labels: Vec<u32>,
        classes: Vec<String>,
    ) -> Result<Dataset, HostError> {
        let shape = match (self.dims.as_slice(), self.kind) {
            ([_, features], _) => row_shape(*features, options.channels, Path::new(&self.place))?,
            ([_, h, w], Kind::Integer(false, 1)) => [*h, *w, 1],
            ([_, length, channels], _) => [1, *length, *channels],
            ([_, channels @ (1 | 3), h, w], _) if *w > 4 => {
                return Err(HostError::new(
                    &self.place,
                    format!("samples of {channels} x {h} x {w}, which look like channels before height and width"),
                    "put the channels last, .transpose(0, 2, 3, 1)",
                ));
            }
            ([_, h, w, channels], _) => [*h, *w, *channels],
            (dims, _) => {
                return Err(HostError::new(
                    &self.place,
                    format!("samples of shape {dims:?}"),
                    "give [n, features], [n, length, channels] or [n, h, w, channels]",
                ));
            }
        };
        if self.dims[0] != labels.len() {
            return Err(HostError::new(
                &self.place,
                format!("{} samples and {} labels", self.dims[0], labels.len()),
                "give each sample one label",
            ));
        }
        let place = self.place.clone();
        Dataset::new(name_of(path), shape, self.into_raw()?, labels, classes).map_err(|e| HostError { place, ..e })
    }

    fn into_raw(self) -> Result<Raw, HostError> {
        let words = self.bytes.chunks_exact(self.kind.size());
        Ok(match self.kind {
            Kind::Integer(false, 1) => Raw::U8(self.bytes),
            Kind::F32 => Raw::F32(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            Kind::F64 => {
                let mut values = Vec::with_capacity(words.len());
                for word in words {
                    let mut bytes = [0; 8];
                    bytes.copy_from_slice(word);
                    let value = f64::from_le_bytes(bytes);
                    if value.is_finite() && (value as f32).is_infinite() {
                        return Err(HostError::new(
                            self.place,
                            format!("{value:e} exceeds the range of float32"),
                            "scale the values",
                        ));
                    }
                    values.push(value as f32);
                }
                Raw::F32(values)
            }
            Kind::Integer(..) => {
                let mut values = Vec::with_capacity(words.len());
                for value in self.integers().into_iter().flatten() {
                    values.push(i16::try_from(value).map_err(|_| {
                        HostError::new(
                            &self.place,
                            format!("{value} exceeds the range of int16"),
                            "scale the values, or save them as float32",
                        )
                    })?);
                }
                Raw::I16(values)
            }
        })
    }
}

/// What follows `key` in the header's dictionary.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    header.split_once(key).map(|(_, rest)| rest.trim_start())
}

/// `(2, 3)` or `(2,)` or `()`.
fn shape(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let inside = inside.trim().trim_end_matches(',');
    if inside.is_empty() {
        return Some(vec![]);
    }
    inside.split(',').map(|dim| dim.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    fn npy(descr: &str, dims: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {dims}, }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(bytes);
        file
    }

    fn npz(arrays: &[(&str, Vec<u8>)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut zip = ZipWriter::new(File::create(folder.path().join("d.npz")).unwrap());
        for (name, bytes) in arrays {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        folder
    }

    fn read_npz(arrays: &[(&str, Vec<u8>)]) -> Result<Dataset, HostError> {
        read(&npz(arrays).path().join("d.npz"), &Options::default()).map(|stored| stored.train.unwrap())
    }

    fn read_x(descr: &str, dims: &str, bytes: &[u8]) -> Result<Dataset, HostError> {
        read_npz(&[("X", npy(descr, dims, bytes)), ("y", npy("<i8", "(1,)", &[0; 8]))])
    }

    #[test]
    fn reads_each_element_type_and_shape() {
        let raw = |descr, dims, bytes: &[u8]| read_x(descr, dims, bytes).map(|set| (set.shape, set.raw)).unwrap();
        assert_eq!(raw("|u1", "(1, 2, 1)", &[3, 250]), ([2, 1, 1], Raw::U8(vec![3, 250])));
        assert_eq!(raw("<i2", "(1, 2, 1)", &[3, 0, 0xFE, 0xFF]), ([1, 2, 1], Raw::I16(vec![3, -2])));
        assert_eq!(raw("|i1", "(1, 1, 2, 1)", &[3, 0xFE]), ([1, 2, 1], Raw::I16(vec![3, -2])));
        assert_eq!(raw("<u2", "(1, 1)", &[0xFF, 0x7F]), ([1, 1, 1], Raw::I16(vec![32767])));
        let floats: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(raw("<f4", "(1, 2)", &floats), ([1, 1, 2], Raw::F32(vec![1.5, -2.0])));
        let doubles: Vec<u8> = [0.1f64, 1e-300].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(raw("<f8", "(1, 2)", &doubles), ([1, 1, 2], Raw::F32(vec![0.1, 0.0])));
    }

    #[test]
    fn reads_archives_and_folders_with_their_own_test_set() {
        let arrays = [
            ("x_train", npy("|u1", "(3, 2)", &[1, 2, 3, 4, 5, 6])),
            ("y_train", npy("|u1", "(3, 1)", &[0, 2, 1])),
            ("X_test", npy("|u1", "(1, 2)", &[7, 8])),
            ("y_test", npy("<i4", "(1,)", &[2, 0, 0, 0])),
        ];
        let folder = npz(&arrays);
        let archive = super::super::open(folder.path().join("d.npz").to_str().unwrap(), &Options::default()).unwrap();
        let files = tempfile::tempdir().unwrap();
        for (name, bytes) in &arrays {
            fs::write(files.path().join(format!("{name}.npy")), bytes).unwrap();
        }
        let (train, test) = super::super::open(files.path().to_str().unwrap(), &Options::default()).unwrap();
        assert_eq!((&train.raw, &train.labels), (&Raw::U8(vec![1, 2, 3, 4, 5, 6]), &vec![0, 2, 1]));
        assert_eq!((&test.raw, &test.labels, test.classes.len()), (&Raw::U8(vec![7, 8]), &vec![2], 3));
        assert_eq!((archive.0.raw, archive.1.labels), (train.raw, test.labels));
        let held = [("x_test", npy("|u1", "(1, 2)", &[7, 8])), ("y_test", npy("|u1", "(1,)", &[2]))];
        let stored = read(&npz(&held).path().join("d.npz"), &Options::default()).unwrap();
        assert_eq!((stored.train, stored.test.unwrap().labels), (None, vec![2]));
        let watched = [("x_val", npy("|u1", "(1, 2)", &[9, 9])), ("y_val", npy("|u1", "(1,)", &[1]))];
        let stored = read(&npz(&[&arrays[..], &watched].concat()).path().join("d.npz"), &Options::default()).unwrap();
        assert_eq!((stored.validation.unwrap().labels, stored.test.unwrap().labels), (vec![1], vec![2]));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let x = |descr, dims, bytes: &[u8]| read_x(descr, dims, bytes).unwrap_err().problem;
        assert!(x("|O", "(1, 1)", &[0]).starts_with("element type |O where"));
        assert!(x(">f4", "(1, 1)", &[0; 4]).starts_with("element type >f4 where"));
        assert_eq!(x("<i4", "(1, 1)", &[0, 0, 1, 0]), "65536 exceeds the range of int16");
        assert_eq!(x("<u8", "(1, 1)", &[255; 8]), "18446744073709551615 exceeds the range of int16");
        assert_eq!(x("<f8", "(1, 1)", &1e300f64.to_le_bytes()), "1e300 exceeds the range of float32");
        assert_eq!(x("<f4", "(1, 1)", &f32::NAN.to_le_bytes()), "value 0 of sample 0 is NaN");
        assert_eq!(x("<f8", "(1, 1)", &f64::INFINITY.to_le_bytes()), "value 0 of sample 0 is inf");
        assert_eq!(x("|u1", "(2, 1)", &[0; 2]), "2 samples and 1 labels");
        assert_eq!(x("|u1", "(1,)", &[0]), "samples of shape [1]");
        assert!(x("|u1", "(1, 3, 5, 5)", &[0; 75]).contains("channels before height"));
        assert!(x("|u1", "(1, 2)", &[0]).ends_with("needs 2 bytes of values, and 1 are there"));
        assert!(x("|u1", "(1, 2)", &[0; 3]).ends_with("and more are there"));
        assert!(x("<f8", "(99999999999, 99999999999)", &[0]).starts_with("absurd shape"));
        assert!(x("<f8", "(9999999999, 99999999)", &[0]).ends_with("and 1 are there"));
        assert!(x("|u1", "(1, -2)", &[0]).contains("is not understood"));
        assert!(x("|u1", "1", &[0]).contains("is not understood"));

        let y = |descr, dims, bytes: &[u8]| {
            read_npz(&[("X", npy("|u1", "(1, 1)", &[0])), ("y", npy(descr, dims, bytes))]).unwrap_err().problem
        };
        assert_eq!(y("<i8", "(1,)", &[255; 8]), "label 0 is -1");
        assert_eq!(y("<f4", "(1,)", &[0; 4]), "labels are not integers");
        assert_eq!(y("|u1", "(1, 3)", &[0; 3]), "labels of shape [1, 3]");
        assert_eq!(y("|u1", "()", &[0]), "labels of shape []");
        assert!(y("<u4", "(1,)", &[0, 0, 1, 0]).starts_with("the label 65536 where"));

        let lone = read_npz(&[("x", npy("|u1", "(1, 1)", &[0]))]).unwrap_err();
        assert_eq!(lone.problem, "no array y");
        let other = read_npz(&[("spam", npy("|u1", "(1, 1)", &[0]))]).unwrap_err();
        assert_eq!(other.problem, "no array of samples among [spam]");
        let text = read_npz(&[("x", b"hello, world".to_vec()), ("y", npy("|u1", "(1,)", &[0]))]).unwrap_err();
        assert!(text.problem.ends_with("which is no NumPy array of version 1 to 3"), "{text}");
        let columns = String::from_utf8_lossy(&npy("|u1", "(1, 1)", &[0])[10..]).replace("False", "True ");
        let mut bytes = npy("|u1", "(1, 1)", &[]);
        bytes.splice(10.., columns.into_bytes());
        let error = read_npz(&[("x", bytes), ("y", npy("|u1", "(1,)", &[0]))]).unwrap_err();
        assert!(error.problem.contains("fortran_order"), "{error}");
    }

    #[test]
    fn a_damaged_archive_never_panics() {
        let folder = npz(&[("X", npy("|u1", "(2, 2)", &[1, 2, 3, 4])), ("y", npy("|u1", "(2,)", &[0, 1]))]);
        let path = folder.path().join("d.npz");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(read(&path, &Options::default()).is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let _ = read(&path, &Options::default());
        }
    }
}
