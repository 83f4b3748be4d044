//! CSV and TSV: one sample per line, its features as numbers, its label as any text.
//!
//! A line is a vector of features, or, with `options.channels`, a time series written sample by
//! sample (`t0 c0, t0 c1, ..., t1 c0, ...`).

use super::{Dataset, Options, Raw, Stored, name_of, row_shape};
use crate::error::HostError;
use csv::{ReaderBuilder, StringRecord, Trim};
use std::collections::HashMap;
use std::format;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// Whether `folder` has a table for training or for the test.
pub(super) fn recognises(folder: &Path) -> bool {
    ["train", "test"].iter().any(|name| locate(folder, name).is_some())
}

/// The file at `path`; or of a folder `train.csv`, `val.csv` and `test.csv` (or `.tsv`), at least the
/// first or the last of them: `[1, 1, features]`, or `[1, length, channels]`.
///
/// Values are i16 where all are whole numbers in its range, as a sensor's are (a model of them can
/// become integers), otherwise f32.
///
/// Classes are the labels of the first of these files, sorted by value if all are integers, else as text.
///
/// # Errors
///
/// A feature that is not a finite number, a line with more or fewer fields, an empty label, a
/// first line that is half a header, an unknown label column, a test label that training does not
/// have; with line and column.
pub fn read(path: &Path, options: &Options) -> Result<Stored, HostError> {
    if !path.is_dir() {
        let all = Table::read(path, options)?.into_dataset(path, path, options, None)?;
        return Ok(narrowed(Stored::whole_of(all)));
    }
    let files = ["train", "val", "test"].map(|name| locate(path, name));
    if let [None, _, None] = files {
        return Err(HostError::new(path.display(), "no train.csv or train.tsv", "add it, and test.csv beside it"));
    }
    let mut header: Option<(StringRecord, PathBuf)> = None;
    let stored = Stored::of(files, |file, classes| {
        let table = Table::read(&file, options)?;
        match (&header, &table.header) {
            (Some((first, other)), Some(columns)) => check_columns(first, other, columns, &file)?,
            (None, Some(columns)) => header = Some((columns.clone(), file.clone())),
            _ => {}
        }
        table.into_dataset(path, &file, options, classes)
    })?;
    Ok(narrowed(stored))
}

/// With values in i16 if all of all parts fit.
fn narrowed(mut stored: Stored) -> Stored {
    let whole = |v: &f32| v.fract() == 0.0 && (-32768.0..=32767.0).contains(v);
    let mut parts: Vec<&mut Dataset> =
        [&mut stored.train, &mut stored.validation, &mut stored.test].into_iter().flatten().collect();
    if parts.iter().all(|part| matches!(&part.raw, Raw::F32(values) if values.iter().all(whole))) {
        for part in &mut parts {
            if let Raw::F32(values) = &part.raw {
                part.raw = Raw::I16(values.iter().map(|&v| v as i16).collect());
            }
        }
    }
    stored
}

/// Checks that the file at `path` has the columns of the file at `first`, in this order.
fn check_columns(mine: &StringRecord, first: &Path, other: &StringRecord, path: &Path) -> Result<(), HostError> {
    if mine.len() != other.len() || mine.iter().eq(other.iter()) {
        return Ok(());
    }
    let names = |record: &StringRecord| record.iter().collect::<Vec<_>>().join(", ");
    Err(HostError::new(
        path.display(),
        format!("has the columns {} where {} has {}", names(other), first.display(), names(mine)),
        "give both the same columns in the same order",
    ))
}

fn locate(folder: &Path, name: &str) -> Option<PathBuf> {
    ["csv", "tsv"].map(|extension| folder.join(name).with_extension(extension)).into_iter().find(|path| path.is_file())
}

/// The lines of a file: features row by row, labels as text, and the line each came from.
struct Table {
    /// The names of its columns, if it has a header.
    header: Option<StringRecord>,
    features: usize,
    values: Vec<f32>,
    labels: Vec<String>,
    lines: Vec<u64>,
}

impl Table {
    fn read(path: &Path, options: &Options) -> Result<Self, HostError> {
        let delimiter = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv")) { b'\t' } else { b',' };
        let failed = |e: csv::Error| {
            let remedy = match e.kind() {
                csv::ErrorKind::UnequalLengths { .. } => {
                    "give every line as many fields, in quotes where they hold commas"
                }
                csv::ErrorKind::Io(_) => "check the path",
                _ => "make it a table of UTF-8 text",
            };
            HostError::new(path.display(), problem_of(&e), remedy)
        };
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter)
            .trim(Trim::All)
            .from_path(path)
            .map_err(failed)?;
        let mut table = Self { header: None, features: 0, values: Vec::new(), labels: Vec::new(), lines: Vec::new() };
        let mut record = StringRecord::new();
        let mut label = 0;
        let mut first = true;
        while reader.read_record(&mut record).map_err(failed)? {
            if first {
                first = false;
                if record.len() < 2 {
                    return Err(HostError::new(
                        path.display(),
                        format!("{} columns where a label and at least one feature are needed", record.len()),
                        "separate columns by commas (.csv) or tabs (.tsv)",
                    ));
                }
                table.features = record.len() - 1;
                let header;
                (label, header) = layout(path, &record, options)?;
                if header {
                    if let Some(column) = record.iter().position(str::is_empty) {
                        return Err(HostError::new(
                            format!("{}, line 1, column {}", path.display(), column + 1),
                            "a column without a name, as pandas writes its index",
                            "save it with `index=False`, or name the column",
                        ));
                    }
                    table.header = Some(record.clone());
                    continue;
                }
            }
            table.push(path, &record, label)?;
        }
        if table.header.is_none() && options.header.is_none() && table.may_start_with_a_header() {
            return Err(HostError::new(
                format!("{}, line 1", path.display()),
                format!("the label \"{}\", unlike all others: is it a header or a sample?", table.labels[0]),
                "say with data.read.header = true or false",
            ));
        }
        Ok(table)
    }

    /// Whether the first line, taken for a sample, may be a header of numbers: its label is no number where all
    /// others are; or its features count from 0 or 1 and its label is the only one that comes once.
    fn may_start_with_a_header(&self) -> bool {
        let [first, others @ ..] = &self.labels[..] else { return false };
        let number = |label: &String| label.parse::<f64>().is_ok();
        let names = &self.values[..self.features];
        let counts = || [0.0, 1.0].contains(&names[0]) && names.windows(2).all(|two| two[1] == two[0] + 1.0);
        let comes_once = || {
            let mut times = HashMap::new();
            self.labels.iter().for_each(|label| *times.entry(label).or_insert(0) += 1);
            times.iter().all(|(label, &n)| (*label == first) == (n == 1))
        };
        !others.is_empty() && !number(first) && (others.iter().all(number) || counts() && comes_once())
    }

    fn push(&mut self, path: &Path, record: &StringRecord, label: usize) -> Result<(), HostError> {
        let line = record.position().map_or(0, csv::Position::line);
        let fail = |column: usize, problem: String, remedy: &str| {
            Err(HostError::new(format!("{}, line {line}, column {}", path.display(), column + 1), problem, remedy))
        };
        for (column, field) in record.iter().enumerate() {
            if column == label {
                if field.is_empty() {
                    return fail(column, "no label".into(), "fill it in, or remove the line");
                }
                self.labels.push(field.into());
                continue;
            }
            match field.parse::<f32>() {
                Ok(value) if value.is_finite() => self.values.push(value),
                Ok(_) => {
                    return fail(column, format!("\"{field}\" is not finite"), "fill it in, or remove the line");
                }
                Err(_) => {
                    return fail(
                        column,
                        format!("\"{field}\" where a number is needed"),
                        "fill it in, or remove the line or column; or name the label column",
                    );
                }
            }
        }
        self.lines.push(line);
        Ok(())
    }

    fn into_dataset(
        self,
        source: &Path,
        path: &Path,
        options: &Options,
        classes: Option<&[String]>,
    ) -> Result<Dataset, HostError> {
        let classes = match classes {
            Some(classes) => classes.to_vec(),
            None => {
                let mut classes = self.labels.clone();
                // Text first: it makes the order of integers that are spelled differently certain.
                classes.sort_unstable();
                classes.dedup();
                if classes.iter().all(|class| class.parse::<i64>().is_ok()) {
                    classes.sort_by_key(|class| class.parse::<i64>().unwrap_or_default());
                }
                classes
            }
        };
        let position: HashMap<&str, u32> =
            classes.iter().enumerate().map(|(i, class)| (class.as_str(), i as u32)).collect();
        let mut labels = Vec::with_capacity(self.labels.len());
        for (label, line) in self.labels.iter().zip(&self.lines) {
            labels.push(*position.get(label.as_str()).ok_or_else(|| {
                HostError::new(
                    format!("{}, line {line}", path.display()),
                    format!("the label \"{label}\" is not among those of the training file"),
                    "add such samples to the training file, or remove the line",
                )
            })?);
        }
        drop(position);
        let shape = row_shape(self.features, options.channels, path)?;
        Dataset::new(name_of(source), shape, Raw::F32(self.values), labels, classes)
            .map_err(|e| HostError { place: path.display().to_string(), ..e })
    }
}

/// The label column, and whether the first line is a header.
fn layout(path: &Path, first: &StringRecord, options: &Options) -> Result<(usize, bool), HostError> {
    let columns = first.len();
    let label = options.label.as_deref();
    let by_name = label.and_then(|label| first.iter().position(|field| field == label));
    let by_number = label.and_then(|label| label.parse().ok()).filter(|&column: &usize| column < columns);
    let or_missing = |column: Option<usize>| match label {
        None => Ok(columns - 1),
        Some(label) => column.ok_or_else(|| {
            HostError::new(
                path.display(),
                format!(
                    "no label column \"{label}\"; the first line is {}",
                    first.iter().collect::<Vec<_>>().join(", ")
                ),
                format!("give a name from the header, or a number from 0 to {}", columns - 1),
            )
        }),
    };
    let header = match options.header {
        Some(header) => header,
        None => {
            let label = or_missing(by_number.or(by_name))?;
            let numbers = first.iter().enumerate().filter(|(i, field)| *i != label && field.parse::<f32>().is_ok());
            match numbers.count() {
                0 => true,
                n if n == columns - 1 => false,
                n => {
                    return Err(HostError::new(
                        format!("{}, line 1", path.display()),
                        format!("{n} of {} features are numbers: is it a header or a sample?", columns - 1),
                        "say whether there is a header, or fill in what is missing",
                    ));
                }
            }
        }
    };
    Ok((or_missing(by_name.filter(|_| header).or(by_number))?, header))
}

/// What went wrong, without the crate's repetition of where.
fn problem_of(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line} has {len} fields where the first line has {expected_len}")
        }
        csv::ErrorKind::Io(e) => format!("cannot be read: {e}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;
    use std::{fs, vec};

    fn table(text: &str, options: &Options) -> Result<Dataset, HostError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        fs::write(&path, text).unwrap();
        read(&path, options).map(|stored| stored.train.unwrap())
    }

    fn problem(text: &str) -> String {
        table(text, &Options::default()).unwrap_err().to_string()
    }

    fn options(label: Option<&str>, header: Option<bool>, channels: Option<usize>) -> Options {
        Options { label: label.map(ToOwned::to_owned), header, channels, ..Options::default() }
    }

    #[test]
    fn the_last_column_is_the_label_and_a_header_is_recognised() {
        let expected = Raw::F32(vec![1.0, -2.5, 3e2, 4.0]);
        for text in ["a,b,kind\n1,-2.5,oak\n3e2, 4 ,ash\n", "1,-2.5,oak\r\n3e2,4,ash"] {
            let set = table(text, &Options::default()).unwrap();
            assert_eq!((set.shape, &set.raw), ([1, 1, 2], &expected));
            assert_eq!((set.labels, set.classes), (vec![1, 0], vec!["ash".to_owned(), "oak".to_owned()]));
        }
    }

    #[test]
    fn a_label_column_is_named_or_numbered() {
        let by_name = table("kind,a,b\n10,1,2\n9,3,4\n", &options(Some("kind"), None, None)).unwrap();
        let by_number = table("10,1,2\n9,3,4\n", &options(Some("0"), None, None)).unwrap();
        assert_eq!((by_name.labels.as_slice(), &by_name.classes[0]), ([1, 0].as_slice(), &"9".to_owned()));
        assert_eq!((&by_name.raw, &by_name.labels), (&by_number.raw, &by_number.labels));
        let counted = table("0,1,2\n5,6,7\n", &options(Some("1"), Some(true), None)).unwrap();
        assert_eq!((counted.raw, counted.classes), (Raw::I16(vec![5, 7]), vec!["6".to_owned()]));
        let error = table("kind,a,b\n10,1,2\n", &options(Some("type"), None, None)).unwrap_err();
        assert!(error.problem.contains("no label column \"type\"; the first line is kind, a, b"), "{error}");
        let error = table("10,1,2\n", &options(Some("3"), None, None)).unwrap_err();
        assert!(error.remedy.contains("a number from 0 to 2"), "{error}");
    }

    #[test]
    fn a_line_can_be_a_time_series() {
        let series = options(None, None, Some(2));
        assert_eq!(table("1,2,3,4,x\n", &series).unwrap().shape, [1, 2, 2]);
        assert!(table("1,2,3,x\n", &series).unwrap_err().problem.starts_with("3 features do not make"));
        assert!(table("1,2,3,x\n", &options(None, None, Some(0))).is_err());
    }

    #[test]
    fn bad_cells_are_named_by_line_and_column() {
        assert!(problem("a,b,l\n1,2,x\n1,,x\n").contains("line 3, column 2: \"\" where a number"));
        assert!(problem("1,2,x\n1,2.0.0,x\n").contains("line 2, column 2: \"2.0.0\" where a number"));
        assert!(problem("1,nan,x\n").contains("line 1, column 2: \"nan\" is not finite"));
        assert!(problem("1,2,x\n1,1e39,x\n").contains("line 2, column 2: \"1e39\" is not finite"));
        assert!(problem("1,2,x\n1,2,\n").contains("line 2, column 3: no label"));
        assert!(problem("1,2,x\n1,2,3,x\n").contains("line 2 has 4 fields where the first line has 3"));
        assert!(problem("1,two,x\n1,2,x\n").contains("1 of 2 features are numbers"));
        assert!(problem("1;2;x\n").contains("1 columns where"));
        assert!(problem("").contains("no samples"));
        assert!(problem("a,b,l\n").contains("no samples"));
        assert!(problem("0,1,label\n5,6,1\n").contains("is it a header or a sample?"));
        let numbered = "0,1,label\n5,6,oak\n7,8,oak\n";
        assert!(problem(numbered).contains("\"label\", unlike all others: is it a header or a sample?"));
        assert_eq!(table(numbered, &options(None, Some(true), None)).unwrap().len(), 2);
        assert_eq!(table(numbered, &options(None, Some(false), None)).unwrap().len(), 3);
        assert_eq!(table("0,1,ash\n5,6,oak\n7,8,ash\n", &Options::default()).unwrap().len(), 3);
        assert!(problem(",a,l\n0,6,1\n").contains("line 1, column 1: a column without a name"));
        assert!(problem("1,2,x\n1,x\n").contains("as many fields"));
    }

    #[test]
    fn a_folder_has_training_and_test() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train.tsv"), "1\t2\tb\n3\t4\ta\n").unwrap();
        fs::write(folder.path().join("test.csv"), "5,6,b\n").unwrap();
        let open = || super::super::open(folder.path().to_str().unwrap(), &Options::default());
        let (train, test) = open().unwrap();
        assert_eq!((train.len(), test.labels, test.classes), (2, vec![1], train.classes));
        fs::write(folder.path().join("test.csv"), "5,6,c\n").unwrap();
        assert!(open().unwrap_err().to_string().contains("line 1: the label \"c\" is not among"));
        fs::remove_file(folder.path().join("train.tsv")).unwrap();
        let alone = read(folder.path(), &Options::default()).unwrap();
        assert_eq!((alone.train, alone.test.unwrap().classes), (None, vec!["c".to_owned()]));
        assert!(open().unwrap_err().problem.contains("no training samples"));
        fs::write(folder.path().join("train.tsv"), "p\tq\tkind\n1\t2\tb\n3\t4\ta\n").unwrap();
        fs::write(folder.path().join("test.csv"), "q,p,kind\n5,6,b\n").unwrap();
        assert!(open().unwrap_err().problem.contains("has the columns q, p, kind where"));
        fs::write(folder.path().join("test.csv"), "5,b\n").unwrap();
        assert!(open().unwrap_err().problem.contains("training samples are 1 x 1 x 2, test samples 1 x 1 x 1"));
        fs::write(folder.path().join("val.csv"), "1,2,a\n").unwrap();
        fs::write(folder.path().join("test.csv"), "5,6,b\n").unwrap();
        let stored = read(folder.path(), &Options::default()).unwrap();
        assert_eq!((stored.validation.unwrap().labels, stored.test.unwrap().labels), (vec![0], vec![1]));
        assert_eq!(open().unwrap().0.len(), 3);
    }
}
