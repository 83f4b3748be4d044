//! IDX, the format of MNIST and its relatives: a folder with four files, plain or `.gz`.
//!
//! `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same for `t10k`. Format: two zero
//! bytes, the element type (8: unsigned byte), the number of dimensions, each dimension as a
//! big-endian u32, the values (<http://yann.lecun.com/exdb/mnist/>).

use super::{Dataset, Raw, Stored, io_error, name_of, numbered};
use crate::error::HostError;
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::boxed::Box;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{env, format, vec};

/// The classes of Fashion-MNIST.
pub const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// SHA-256 of the files of Fashion-MNIST, uncompressed: archives compress them anew.
const FASHION_SHA256: [(&str, &str); 4] = [
    ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
];

/// Whether `folder` has a file of images.
pub(super) fn recognises(folder: &Path) -> bool {
    ["train", "t10k"].iter().any(|part| locate(folder, &format!("{part}-images-idx3-ubyte")).is_some())
}

/// The training set of a folder of IDX files and the test set (`t10k`), or one alone: u8 images
/// `[h, w, 1]`, classes named by number.
///
/// # Errors
///
/// A missing file, a wrong magic, a file that is cut short or too long, images and labels of
/// different number, a test label that training does not have.
pub fn read(folder: &Path) -> Result<Stored, HostError> {
    let has = |part: &'static str| locate(folder, &format!("{part}-images-idx3-ubyte")).map(|_| part);
    let test = has("t10k");
    let train = if test.is_some() { has("train") } else { Some("train") };
    Stored::of([train, None, test], |part, classes| {
        let images = Idx::read(folder, &format!("{part}-images-idx3-ubyte"), 3)?;
        let labels = Idx::read(folder, &format!("{part}-labels-idx1-ubyte"), 1)?;
        let classes = classes.map_or_else(|| numbered(&labels.labels(), &labels.path), |c| Ok(c.to_vec()))?;
        assemble(folder, images, labels, classes)
    })
}

/// The dimensions of a file of unsigned bytes, and its values.
///
/// # Errors
///
/// A wrong magic, a file that is cut short or too long.
pub fn array(path: &Path) -> Result<(Vec<usize>, Vec<u8>), HostError> {
    let Idx { dims, values, .. } = Idx::open(path.into(), None)?;
    Ok((dims, values))
}

/// The full Fashion-MNIST (60000 + 10000 u8 images of 28 x 28 x 1), verified by SHA-256.
///
/// Looked for in `$SOFTEDGE_DATA/fashion-mnist`, `./data/fashion-mnist` and
/// `/usr/share/datasets/fashion-mnist`, where Debian's package `dataset-fashion-mnist` puts it.
///
/// # Errors
///
/// Not found (the error says how to get it), or as for [`read`], or other content.
pub fn fashion_mnist() -> Result<(Dataset, Dataset), HostError> {
    let roots = env::var_os("SOFTEDGE_DATA").map(PathBuf::from).into_iter();
    let roots = roots.chain(["data".into(), "/usr/share/datasets".into()]);
    fashion_mnist_in(&roots.map(|root| root.join("fashion-mnist")).collect::<Vec<_>>())
}

fn fashion_mnist_in(places: &[PathBuf]) -> Result<(Dataset, Dataset), HostError> {
    let Some(folder) = places.iter().find(|place| recognises(place)) else {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(HostError::new(
            "fashion-mnist",
            format!("its IDX files are in none of {}", places.join(", ")),
            "`apt-get install dataset-fashion-mnist`, or download the four .gz files listed at \
             https://github.com/zalandoresearch/fashion-mnist#get-the-data into ./data/fashion-mnist or \
             $SOFTEDGE_DATA/fashion-mnist; or use the bundled fashion-mini",
        ));
    };
    let mut files = Vec::new();
    for (name, expected) in FASHION_SHA256 {
        let file = Idx::read(folder, name, if name.contains("images") { 3 } else { 1 })?;
        let found = file.sha256();
        if found != expected {
            return Err(HostError::new(
                file.path.display(),
                format!("not Fashion-MNIST: SHA-256 {found} of the uncompressed file where {expected} is needed"),
                "download the file again; or, to read another set of this format, name its folder",
            ));
        }
        files.push(file);
    }
    let mut files = files.into_iter();
    let mut next = || -> Result<Dataset, HostError> {
        let (Some(images), Some(labels)) = (files.next(), files.next()) else { unreachable!("four files") };
        assemble(folder, images, labels, FASHION_CLASSES.map(String::from).to_vec())
    };
    Ok((next()?, next()?))
}

fn assemble(folder: &Path, images: Idx, labels: Idx, classes: Vec<String>) -> Result<Dataset, HostError> {
    let (found, needed) = (labels.dims[0], images.dims[0]);
    if found != needed {
        return Err(HostError::new(
            labels.path.display(),
            format!("{found} labels for the {needed} images of {}", images.path.display()),
            "take both files from the same set",
        ));
    }
    Dataset::new(name_of(folder), [images.dims[1], images.dims[2], 1], Raw::U8(images.values), labels.labels(), classes)
        .map_err(|e| HostError { place: labels.path.display().to_string(), ..e })
}

/// The file called `name`, plain or with `.gz`.
fn locate(folder: &Path, name: &str) -> Option<PathBuf> {
    [folder.join(name), folder.join(format!("{name}.gz"))].into_iter().find(|path| path.is_file())
}

/// One file of unsigned bytes.
struct Idx {
    path: PathBuf,
    dims: Vec<usize>,
    header: Vec<u8>,
    values: Vec<u8>,
}

impl Idx {
    /// The file called `name`, which must have so many dimensions.
    fn read(folder: &Path, name: &str, n_dims: usize) -> Result<Self, HostError> {
        let path = locate(folder, name).ok_or_else(|| {
            HostError::new(
                folder.display(),
                format!("no file {name} or {name}.gz"),
                "an IDX set has train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k",
            )
        })?;
        Self::open(path, Some(n_dims))
    }

    /// The file at `path`, with `n_dims` dimensions if that is given.
    fn open(path: PathBuf, n_dims: Option<usize>) -> Result<Self, HostError> {
        let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
        let failed = |e: std::io::Error| match e.kind() {
            ErrorKind::UnexpectedEof => fail("the file is cut short".into(), "copy or download it again"),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => {
                fail(format!("damaged gzip data: {e}"), "copy or download it again")
            }
            _ => io_error(&path, &e),
        };

        let mut file = BufReader::new(File::open(&path).map_err(failed)?);
        // The content says whether it is compressed: a .gz suffix survives some decompressors.
        let compressed = file.fill_buf().map_err(failed)?.starts_with(&[0x1F, 0x8B]);
        let mut bytes: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };

        let mut header = vec![0; 4];
        bytes.read_exact(&mut header).map_err(failed)?;
        let n_dims = n_dims.unwrap_or(header[3].into());
        let magic = [0, 0, 8, n_dims as u8];
        if header != magic || n_dims == 0 {
            return Err(fail(
                format!("starts with {header:02x?} where an IDX file of {n_dims}-d bytes has {magic:02x?}"),
                "check that this is the right file of the set",
            ));
        }
        header.resize(4 + 4 * n_dims, 0);
        bytes.read_exact(&mut header[4..]).map_err(failed)?;
        let dims: Vec<usize> =
            header[4..].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
        let needed = super::product(&dims)
            .ok_or_else(|| fail(format!("absurd dimensions {dims:?}"), "copy or download the file again"))?;

        // The dimensions are not trusted with an allocation: memory grows as bytes arrive.
        let mut values = Vec::new();
        bytes.take(needed as u64 + 1).read_to_end(&mut values).map_err(failed)?;
        if values.len() != needed {
            let found = if values.len() > needed { "more".into() } else { format!("{}", values.len()) };
            return Err(fail(
                format!("dimensions {dims:?} need {needed} bytes of values, and {found} are there"),
                "copy or download the file again",
            ));
        }
        Ok(Self { path, dims, header, values })
    }

    fn labels(&self) -> Vec<u32> {
        self.values.iter().map(|&label| u32::from(label)).collect()
    }

    fn sha256(&self) -> String {
        let digest = Sha256::new().chain_update(&self.header).chain_update(&self.values).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::fs;
    use std::io::Write;

    fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A folder with `files`, their content as given.
    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
        folder
    }

    fn problem(images: Vec<u8>, labels: Vec<u8>) -> String {
        let folder = folder(&[("train-images-idx3-ubyte.gz", images), ("train-labels-idx1-ubyte", labels)]);
        read(folder.path()).unwrap_err().problem
    }

    #[test]
    fn reads_plain_and_compressed_files() {
        let pixels: Vec<u8> = (0..12).collect();
        let folder = folder(&[
            ("train-images-idx3-ubyte", idx(&[2, 2, 3], &pixels)),
            ("train-labels-idx1-ubyte.gz", gz(&idx(&[2], &[2, 0]))),
            ("t10k-images-idx3-ubyte.gz", gz(&idx(&[1, 2, 3], &pixels[..6]))),
            ("t10k-labels-idx1-ubyte", idx(&[1], &[1])),
        ]);
        let (train, test) = super::super::open(folder.path().to_str().unwrap(), &Default::default()).unwrap();
        assert_eq!((train.shape, &train.raw), ([2, 3, 1], &Raw::U8(pixels)));
        assert_eq!((train.labels, train.classes.len(), test.labels), (vec![2, 0], 3, vec![1]));
    }

    #[test]
    fn bad_files_are_refused_with_the_reason() {
        let images = idx(&[2, 1, 1], &[5, 6]);
        let labels = idx(&[2], &[0, 1]);
        assert!(problem(labels.clone(), labels.clone()).starts_with("starts with [00, 00, 08, 01] where"));
        assert_eq!(
            problem(idx(&[2, 1, 1], &[5]), labels.clone()),
            "dimensions [2, 1, 1] need 2 bytes of values, and 1 are there"
        );
        assert!(problem(idx(&[2, 1, 1], &[5, 6, 7]), labels.clone()).ends_with("and more are there"));
        assert!(problem(idx(&[u32::MAX; 3], &[5, 6, 7]), labels.clone()).starts_with("absurd dimensions"));
        assert!(problem(idx(&[u32::MAX, 1, 1], &[5]), labels.clone()).ends_with("and 1 are there"));
        assert!(problem(images.clone(), idx(&[1], &[0])).starts_with("1 labels for the 2 images"));
        assert_eq!(problem(images[..9].to_vec(), labels.clone()), "the file is cut short");
        assert_eq!(problem(vec![], labels.clone()), "the file is cut short");
        let compressed = gz(&images);
        for length in 2..compressed.len() {
            let problem = problem(compressed[..length].to_vec(), labels.clone());
            assert!(problem.contains("cut short") || problem.contains("damaged"), "{problem}");
        }
        let mut flipped = compressed;
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        assert!(problem(flipped, labels).starts_with("damaged gzip data"));
        assert_eq!(problem(idx(&[0, 1, 1], &[]), idx(&[0], &[])), "no samples");
        let lone = folder(&[("train-images-idx3-ubyte", images)]);
        assert!(read(lone.path()).unwrap_err().problem.starts_with("no file train-labels"));
    }

    #[test]
    fn a_test_label_beyond_training_is_refused() {
        let images = idx(&[1, 1, 1], &[5]);
        let folder = folder(&[
            ("train-images-idx3-ubyte", images.clone()),
            ("train-labels-idx1-ubyte", idx(&[1], &[0])),
            ("t10k-images-idx3-ubyte", images),
            ("t10k-labels-idx1-ubyte", idx(&[1], &[4])),
        ]);
        let error = read(folder.path()).unwrap_err();
        assert!(error.place.ends_with("t10k-labels-idx1-ubyte"), "{error}");
        assert_eq!(error.problem, "sample 0 has label 4, and there are 1 classes");
    }

    #[test]
    fn fashion_mnist_is_verified_and_says_where_to_get_it() {
        let images = idx(&[1, 1, 1], &[5]);
        let folder = folder(&[("train-images-idx3-ubyte", images)]);
        let error = fashion_mnist_in(&[folder.path().into()]).unwrap_err();
        assert!(error.problem.starts_with("not Fashion-MNIST: SHA-256"), "{error}");
        let error = fashion_mnist_in(&[folder.path().join("nowhere")]).unwrap_err();
        assert!(error.remedy.contains("apt-get install") && error.remedy.contains("zalandoresearch"), "{error}");
    }

    #[test]
    #[ignore = "needs the full Fashion-MNIST"]
    fn the_full_set_is_read_and_the_bundle_is_its_start() {
        let (train, test) = fashion_mnist().unwrap();
        assert_eq!((train.len(), test.len(), train.shape), (60_000, 10_000, [28, 28, 1]));
        let (mini_train, mini_test) = crate::data::bundle::fashion_mini().unwrap();
        for (full, mini, per_class) in [(train, mini_train, 500), (test, mini_test, 100)] {
            let labels = &full.labels;
            let first = |class| (0..full.len()).filter(move |&i| labels[i] == class).take(per_class);
            let indices: Vec<usize> = (0..10).flat_map(first).collect();
            let start = full.subset(&indices).unwrap();
            assert_eq!((start.raw, start.labels, start.classes), (mini.raw, mini.labels, mini.classes));
        }
    }
}
