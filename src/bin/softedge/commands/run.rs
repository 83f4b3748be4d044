//! `softedge run`.

use crate::data::Choice;
use crate::infer::{self, Runner, encode};
use crate::model_file::ModelFile;
use crate::run_folder;
use crate::terminal::{Table, dims, say, warning};
use image::imageops::FilterType;
use softedge::data::{Dataset, Raw, folder, idx, npz};
use softedge::error::HostError;
use softedge::ops::DType;
use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A .soft model.
    model: PathBuf,
    /// Images (.png, .jpg), arrays (.npy) or IDX images (...-ubyte, plain or .gz) of one sample or
    /// several, or raw bytes (.bin, .raw, .dat or without extension).
    #[arg(conflicts_with_all = ["data", "split"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    samples: Choice,
    /// Samples FROM..TO of those there are, counted from 0.
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    range: Option<Range<usize>>,
    /// Stretch images to the size the model takes.
    #[arg(long)]
    resize: bool,
    /// Classes to show for each sample.
    #[arg(long, default_value_t = 3)]
    top: usize,
    /// Write the raw scores of all samples, little-endian.
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,
    /// Write the raw inputs of all samples, little-endian.
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let parse = |part: &str| part.parse::<usize>().map_err(|_| format!("`{part}` is no number; write 0..10"));
    let (from, to) = text.split_once("..").ok_or("write it as 0..10")?;
    let range = parse(from)?..parse(to)?;
    if range.is_empty() { Err("holds no sample: the second number must be larger".into()) } else { Ok(range) }
}

/// A sample for the model, its name, and its class where that is known.
struct Input {
    name: String,
    bytes: Vec<u8>,
    label: Option<usize>,
}

pub fn run(args: Args) -> Result<(), HostError> {
    let sources: Vec<&Path> = args.files.iter().chain([&args.model]).map(PathBuf::as_path).collect();
    for output in args.inputs.iter().chain(&args.outputs) {
        run_folder::check_output(output, &sources)?;
    }
    if args.inputs.is_some() && args.inputs == args.outputs {
        return Err(HostError::new("--inputs and --outputs", "name one file", "name two"));
    }
    let model = ModelFile::open(&args.model)?;
    let inputs = if args.files.is_empty() {
        let config = run_folder::beside(&args.model)?;
        let set = args.samples.open(&model, config)?;
        infer::check(&model, &set)?;
        let range = within(args.range, set.len(), &set.name)?;
        range.map(|i| labelled(&model, &set, i)).collect::<Result<_, _>>()?
    } else {
        let mut inputs = Vec::new();
        for file in &args.files {
            read(&model, file, args.resize, &mut inputs)?;
        }
        let range = within(args.range, inputs.len(), "the files")?;
        inputs.drain(range).collect::<Vec<_>>()
    };
    let mut arena = infer::arena(&model);
    let mut runner = Runner::new(&model, &mut arena)?;
    let mut raw = Vec::new();
    let heading = if model.is_integer() { "scores (raw)" } else { "scores" };
    let mut table = Table::new(&["sample", "label", "class", heading]);
    let (mut known, mut correct) = (0, 0);
    for input in &inputs {
        let bytes = runner.run(&input.bytes).to_vec();
        let scores = runner.scores(&bytes);
        let order = infer::ranked(&scores);
        let shown = order.iter().take(args.top).map(|&class| {
            let value = if model.is_integer() {
                integer(&bytes, class, model.view().output(0).dtype)
            } else {
                scores[class].to_string()
            };
            format!("{} {value}", model.class(class))
        });
        if let Some(label) = input.label {
            known += 1;
            correct += usize::from(order.first() == Some(&label));
        }
        let label = input.label.map_or("-".into(), |label| model.class(label));
        let class = order.first().map_or(String::new(), |&class| model.class(class));
        table.row([input.name.clone(), label, class, shown.collect::<Vec<_>>().join(", ")]);
        raw.extend(bytes);
    }
    say!("{table}");
    if known > 0 {
        say!("\n{correct} of {known} correct");
    }
    if let Some(path) = args.inputs {
        run_folder::write(&path, inputs.iter().flat_map(|i| &i.bytes).copied().collect::<Vec<u8>>())?;
    }
    if let Some(path) = args.outputs {
        run_folder::write(&path, raw)?;
    }
    Ok(())
}

/// `range` if it lies within the samples there are; all of them where none is given.
fn within(range: Option<Range<usize>>, len: usize, what: &str) -> Result<Range<usize>, HostError> {
    match range {
        None => Ok(0..len),
        Some(range) if range.end <= len => Ok(range),
        Some(range) => Err(HostError::new(
            format!("--range {}..{}", range.start, range.end),
            format!("{what} holds {len} samples"),
            "samples count from 0",
        )),
    }
}

fn labelled(model: &ModelFile, set: &Dataset, i: usize) -> Result<Input, HostError> {
    let bytes = infer::raw_input(model.view().input(0).dtype, set, i)?;
    Ok(Input { name: format!("{} {i}", set.name), bytes, label: Some(set.labels[i] as usize) })
}

/// The raw score of a class.
fn integer(bytes: &[u8], class: usize, dtype: DType) -> String {
    let at = &bytes[class * dtype.size()..][..dtype.size()];
    match *at {
        [b] if dtype == DType::I8 => (b as i8).to_string(),
        [b] => b.to_string(),
        [a, b] => i16::from_le_bytes([a, b]).to_string(),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]).to_string(),
        _ => String::new(),
    }
}

/// Appends the samples of a file.
fn read(model: &ModelFile, path: &Path, resize: bool, inputs: &mut Vec<Input>) -> Result<(), HostError> {
    let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
    let (shape, dtype) = (model.input_shape()?, model.view().input(0).dtype);
    let width: usize = shape.iter().product();
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let bytes = match &*extension {
        _ if path.is_dir() => {
            return Err(fail("is a folder where a file is needed".into(), "name its files, or give it with --data"));
        }
        "png" | "jpg" | "jpeg" => encode(dtype, &pixels(path, shape, resize)?),
        "npy" => encode(dtype, &shaped(path, shape, npz::array(path)?)?),
        _ if name.contains("-ubyte") => {
            let (dims, values) = idx::array(path)?;
            encode(dtype, &shaped(path, shape, (dims, Raw::U8(values)))?)
        }
        "" | "bin" | "raw" | "dat" => {
            let bytes = fs::read(path).map_err(|e| fail(format!("cannot be read: {e}"), "check the path"))?;
            Some(bytes).filter(|bytes| dtype != DType::F32 || infer::is_finite(bytes))
        }
        "csv" | "tsv" | "npz" => {
            return Err(fail("is a data set where single samples are needed".into(), "give it with --data"));
        }
        _ => {
            return Err(fail(
                format!("a file of unknown kind \"{extension}\""),
                "give .png, .jpg, .npy or IDX files, raw bytes as .bin, and data sets with --data",
            ));
        }
    };
    let bytes = bytes.ok_or_else(|| {
        let problem = match dtype {
            DType::F32 => "has values that are not finite".into(),
            _ => format!("has values that are not whole numbers in the range of {}", dtype.name()),
        };
        fail(problem, "the model takes raw data: give it values as in its training data")
    })?;
    if dtype == DType::F32 {
        let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        // A sample may be next to nothing, unlike a data set.
        if let Err(e) = infer::check_units(model, &path.display().to_string(), &values) {
            warning(&e.to_string());
        }
    }
    let sample = width * dtype.size();
    if bytes.is_empty() || !bytes.len().is_multiple_of(sample) {
        return Err(fail(
            format!("has {} bytes, and a sample of {} {} has {sample}", bytes.len(), dims(&shape), dtype.name()),
            "give whole samples, one after the other",
        ));
    }
    let several = bytes.len() > sample;
    for (i, bytes) in bytes.chunks_exact(sample).enumerate() {
        let name = if several { format!("{} {i}", path.display()) } else { path.display().to_string() };
        inputs.push(Input { name, bytes: bytes.into(), label: None });
    }
    Ok(())
}

/// The pixels of an image, grey or RGB as the model takes them.
fn pixels(path: &Path, [h, w, c]: [usize; 3], resize: bool) -> Result<Vec<f32>, HostError> {
    let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
    let mut image = folder::image(path)?;
    if (image.height() as usize, image.width() as usize) != (h, w) {
        if !resize {
            let (height, width) = (image.height(), image.width());
            return Err(fail(
                format!("is {height} pixels high and {width} wide where the model takes {h} and {w}"),
                "crop it, or stretch it with --resize",
            ));
        }
        image = image.resize_exact(w as u32, h as u32, FilterType::Triangle);
    }
    let pixels = match c {
        1 => image.into_luma8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        _ => return Err(fail(format!("is an image, and the model takes {c} channels"), "give a .npy file")),
    };
    Ok(pixels.into_iter().map(f32::from).collect())
}

/// The values of an array of this shape that holds one sample or several.
fn shaped(path: &Path, [h, w, c]: [usize; 3], (shape, raw): (Vec<usize>, Raw)) -> Result<Vec<f32>, HostError> {
    let squeezed = |shape: &[usize]| shape.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    let sample = squeezed(&[h, w, c]);
    let fits = squeezed(&shape) == sample || shape.get(1..).is_some_and(|rest| squeezed(rest) == sample);
    if !fits {
        return Err(HostError::new(
            path.display(),
            format!("has the shape {shape:?} where the model takes [{h}, {w}, {c}], or [n, {h}, {w}, {c}]"),
            "reshape it",
        ));
    }
    Ok(match raw {
        Raw::U8(v) => v.into_iter().map(f32::from).collect(),
        Raw::I16(v) => v.into_iter().map(f32::from).collect(),
        Raw::F32(v) => v,
    })
}
