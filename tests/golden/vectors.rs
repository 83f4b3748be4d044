//! The formula of inputs and weights, and the results to compare with.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use softedge::math::random::Stream;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// `offset + scale t_i`, where `t_i` in `[-1, 1)` comes from the hash of `name`.
pub fn values(name: &str, len: usize, scale: f64, offset: f64) -> Vec<f32> {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let stream = Stream::new(hash);
    let t = |i: u64| (stream.bits(i) >> 40) as f64 / f64::from(1 << 23) - 1.0;
    (0..len as u64).map(|i| (offset + scale * t(i)) as f32).collect()
}

/// An input: scale sqrt(3), so that its variance is 1.
pub fn input(name: &str, len: usize) -> Vec<f32> {
    values(name, len, 3f64.sqrt(), 0.0)
}

/// The parameter or running statistic `name` of this shape, in PyTorch's layout.
pub fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
    let key = name.rsplit_once('.').map_or(name, |(_, last)| last);
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    let (scale, offset) = match key {
        "running_mean" => (0.1, 0.0),
        "running_var" => (0.5, 1.0),
        "bias" | "cls_token" => (0.1, 0.0),
        _ if key.starts_with("pos_embed") => (0.1, 0.0),
        "weight" if shape.len() == 1 => (0.1, if name.contains("Qnorm_act") { 0.3 } else { 1.0 }),
        _ => ((3.0 / fan_in).sqrt(), 0.0),
    };
    values(name, shape.iter().product(), scale, offset)
}

/// What a result must be: all of it, or every `stride`-th element and the sums of all.
pub struct Wanted {
    pub stride: usize,
    pub sample: Vec<f64>,
    pub len: usize,
    /// Largest magnitude.
    pub largest: f64,
    /// Largest difference between the official code's runs in f32 and in f64.
    pub gap: f64,
    pub sum: f64,
    pub squares: f64,
}

impl Wanted {
    fn new(exact: &[f64], single: &[f32], most: usize) -> Self {
        // Odd, so that it does not keep to one column of a tensor whose width is even.
        let stride = if exact.len() <= most { 1 } else { exact.len().div_ceil(most) | 1 };
        let magnitudes = exact.iter().map(|v| v.abs());
        let differences = exact.iter().zip(single).map(|(e, &s)| (e - f64::from(s)).abs());
        Self {
            stride,
            sample: exact.iter().step_by(stride).copied().collect(),
            len: exact.len(),
            largest: magnitudes.fold(0.0, f64::max),
            gap: differences.fold(0.0, f64::max),
            sum: exact.iter().sum(),
            squares: exact.iter().map(|v| v * v).sum(),
        }
    }
}

/// How close a result must be, relative to its tensor's largest magnitude; or four times the
/// official code's own f32 error, where that is larger.
pub const FORWARD: f64 = 1e-5;
pub const GRADIENT: f64 = 1e-4;

/// The results of one golden file.
pub struct Golden {
    file: String,
    wanted: BTreeMap<String, Wanted>,
    /// Inputs that no formula gives.
    stored: BTreeMap<String, Vec<f32>>,
    seen: BTreeSet<String>,
    worst: (f64, String),
}

/// Where the full files are, if `SOFTEDGE_GOLDEN` says.
pub fn full() -> Option<PathBuf> {
    std::env::var_os("SOFTEDGE_GOLDEN").map(PathBuf::from)
}

fn committed() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

fn f32s(view: &TensorView<'_>) -> Vec<f32> {
    assert_eq!(view.dtype(), Dtype::F32);
    view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn f64s(view: &TensorView<'_>) -> Vec<f64> {
    assert_eq!(view.dtype(), Dtype::F64);
    view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

impl Golden {
    /// The results of `file`: all of them where the full files are, else the committed part.
    pub fn open(file: &str) -> Self {
        match full() {
            Some(_) => Self::read_full(file, usize::MAX),
            None => Self::read_committed(file),
        }
    }

    /// From the full file, `most` elements of each tensor.
    pub fn read_full(file: &str, most: usize) -> Self {
        let mut golden = Self::empty(file);
        let path = full().expect("SOFTEDGE_GOLDEN names a folder").join(format!("{file}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        // The library has the official rule of the inverse's gradient, not that of the iteration.
        for (name, view) in tensors.iter().filter(|(name, _)| !name.contains("gradP_unrolled")) {
            if let Some(result) = name.strip_suffix(".f64") {
                let exact = f64s(&view);
                let single = match tensors.tensor(&format!("{result}.f32")) {
                    Ok(view) => f32s(&view),
                    Err(_) => exact.iter().map(|&v| v as f32).collect(),
                };
                golden.wanted.insert(result.into(), Wanted::new(&exact, &single, most));
            } else if name.ends_with(".P") || name.ends_with(".G") {
                golden.stored.insert(name.into(), f32s(&view));
            } else if let (Some(key), Dtype::F32) = (name.strip_prefix("param."), view.dtype()) {
                assert_eq!(f32s(&view), parameter(&golden.parameter_name(key), view.shape()), "the formula of {name}");
            }
        }
        golden
    }

    fn read_committed(file: &str) -> Self {
        let mut golden = Self::empty(file);
        let bytes = std::fs::read(committed().join(format!("{file}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in tensors.iter() {
            let Some(result) = name.strip_suffix(".summary") else { continue };
            let [len, stride, largest, gap, sum, squares] = f64s(&view)[..] else { panic!("{file}: {name}") };
            let sample = f32s(&tensors.tensor(result).unwrap()).into_iter().map(f64::from).collect();
            let (len, stride) = (len as usize, stride as usize);
            golden.wanted.insert(result.into(), Wanted { stride, sample, len, largest, gap, sum, squares });
        }
        for (name, view) in tensors.iter().filter(|(name, _)| name.ends_with(".P") || name.ends_with(".G")) {
            golden.stored.insert(name.into(), f32s(&view));
        }
        golden
    }

    fn empty(file: &str) -> Self {
        Self {
            file: file.into(),
            wanted: BTreeMap::new(),
            stored: BTreeMap::new(),
            seen: BTreeSet::new(),
            worst: (0.0, String::new()),
        }
    }

    /// What is hashed for the parameter `key` of this file's model.
    fn parameter_name(&self, key: &str) -> String {
        let prefix = match self.file.as_str() {
            "attn_soft_r2" => "attn.soft.r2",
            "attn_soft_r4" => "attn.soft.r4",
            "attn_soft_norm_r2" => "attn.soft_norm.r2",
            "attn_soft_norm_r4" => "attn.soft_norm.r4",
            "block_soft" => "block.soft",
            "block_soft_norm" => "block.soft_norm",
            "patch_embed_stem" => "patch.stem",
            "patch_embed_down" => "patch.down",
            "small_soft" => "small.soft",
            "small_soft_norm" => "small.soft_norm",
            other => panic!("{other} has no parameters"),
        };
        format!("{prefix}.{key}")
    }

    /// Writes the part that is committed.
    pub fn commit(&self) {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors: BTreeMap<String, (Dtype, usize, Vec<u8>)> = BTreeMap::new();
        for (name, w) in &self.wanted {
            let sample: Vec<f32> = w.sample.iter().map(|&v| v as f32).collect();
            tensors.insert(name.clone(), (Dtype::F32, sample.len(), bytes(&sample)));
            let summary = [w.len as f64, w.stride as f64, w.largest, w.gap, w.sum, w.squares];
            let summary: Vec<u8> = summary.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.insert(format!("{name}.summary"), (Dtype::F64, 6, summary));
        }
        for (name, values) in &self.stored {
            tensors.insert(name.clone(), (Dtype::F32, values.len(), bytes(values)));
        }
        let views = tensors
            .iter()
            .map(|(name, (dtype, len, bytes))| (name.as_str(), TensorView::new(*dtype, vec![*len], bytes).unwrap()));
        let file = safetensors::serialize(views, None).unwrap();
        std::fs::write(committed().join(format!("{}.safetensors", self.file)), file).unwrap();
    }

    /// An input that no formula gives.
    pub fn stored(&self, name: &str) -> &[f32] {
        &self.stored[name]
    }

    pub fn wanted(&self, name: &str) -> &Wanted {
        self.wanted.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.file))
    }

    /// Compares a whole tensor with what is wanted.
    pub fn check(&mut self, name: &str, got: &[f32], relative: f64) {
        let largest = self.wanted(name).largest;
        self.check_each(name, got, |_| Some(relative * largest));
        let wanted = self.wanted(name);
        let allowed = (relative * wanted.largest).max(4.0 * wanted.gap);
        let got = || got.iter().map(|&v| f64::from(v));
        let (sum, squares) = (got().sum::<f64>(), got().map(|v| v * v).sum::<f64>());
        let n = wanted.len as f64;
        assert!((sum - wanted.sum).abs() <= allowed * n, "{}: sum of {name}: {sum}, not {}", self.file, wanted.sum);
        // By Cauchy and Schwarz, from n errors of `allowed` each.
        let bound = 2.0 * allowed * (n * wanted.squares).sqrt() + n * allowed * allowed;
        let off = (squares - wanted.squares).abs();
        assert!(off <= bound, "{}: sum of squares of {name}: {squares}, not {}", self.file, wanted.squares);
    }

    /// Compares elements of a tensor, `allowed` for the `k`-th of its sample (or four times the official
    /// code's own f32 error); `None` leaves an element out.
    pub fn check_each(&mut self, name: &str, got: &[f32], allowed: impl Fn(usize) -> Option<f64>) {
        let file = &self.file;
        let Wanted { stride, ref sample, len, largest, gap, .. } = *self.wanted(name);
        assert_eq!(got.len(), len, "{file}: elements of {name}");
        let (mut worst, mut part, mut compared) = (0.0f64, 0.0f64, 0);
        for (k, &want) in sample.iter().enumerate() {
            let Some(allowed) = allowed(k).map(|a| a.max(4.0 * gap)) else { continue };
            let i = k * stride;
            let error = (f64::from(got[i]) - want).abs();
            assert!(
                error <= allowed,
                "{file}: {name}[{i}] is {} and not {want}, off by {error:.2e} where {allowed:.2e} is allowed; \
                 the tensor's largest is {largest:.2e}, the official f32 is off by up to {gap:.2e}",
                got[i]
            );
            compared += 1;
            worst = worst.max(error);
            part = part.max(error / allowed);
        }
        assert!(compared > 0 || sample.is_empty(), "{file}: no element of {name} is compared");
        println!("{file} {name}: off by {worst:.1e} of {largest:.1e}, the official f32 by {gap:.1e}");
        if part > self.worst.0 {
            self.worst = (part, name.into());
        }
        self.seen.insert(name.into());
    }

    /// Leaves a result out, for a reason given where this is called.
    pub fn skip(&mut self, name: &str) {
        assert!(self.wanted.contains_key(name), "{name}");
        self.seen.insert(name.into());
    }

    /// Asserts that every result was compared.
    pub fn finish(self) {
        let left: Vec<&String> = self.wanted.keys().filter(|name| !self.seen.contains(*name)).collect();
        assert!(left.is_empty(), "{}: not compared: {left:?}", self.file);
        let (part, name) = &self.worst;
        println!(
            "{}: {} results, {:.0}% of what is allowed at worst ({name})",
            self.file,
            self.seen.len(),
            100.0 * part
        );
    }
}
