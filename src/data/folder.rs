//! Folders of images, one folder per class: `root/class/*.png`, or `root/train/class/*.png` with
//! `root/test/class/*.png` and, for validation, `root/val/class/*.png`. Without `test`, `val` is the test
//! set; `test` may be alone.
//!
//! PNG and JPEG, by content; other files and names that start with a dot are passed over. Classes
//! and images come in the order of their names.

use super::{Dataset, Options, Raw, Stored, io_error, name_of};
use crate::error::HostError;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, imageops::FilterType};
use std::borrow::ToOwned;
use std::ffi::OsStr;
use std::format;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// Far above what any model takes.
const MOST_PIXELS: usize = 1 << 24;

/// The images of `root`: u8, `[h, w, 1]` grey or `[h, w, 3]` RGB.
///
/// `options.size` stretches images to one size (bilinear; the aspect ratio is not kept); without
/// it all must have the size of the first. `options.channels` is 1 for grey or 3 for RGB; without
/// it the first image decides, and colour after grey is an error. 16-bit images become 8-bit; see [`image()`].
///
/// # Errors
///
/// No class folders, a class without images, an unreadable image, sizes that differ, a class
/// of another part that training does not have.
pub fn read(root: &Path, options: &Options) -> Result<Stored, HostError> {
    if let Some(channels) = options.channels
        && channels != 1
        && channels != 3
    {
        return Err(HostError::new(
            root.display(),
            format!("images of {channels} channels"),
            "give 1 for grey or 3 for RGB",
        ));
    }
    if let Some([h, w]) = options.size
        && !(h > 0 && w > 0 && h.saturating_mul(w) <= MOST_PIXELS)
    {
        return Err(HostError::new(
            "data.read.size",
            format!("is {h} x {w} where 1 to {MOST_PIXELS} pixels are needed"),
            "give the height and width that the model takes",
        ));
    }
    let mut form = Form::new(options);
    let [train, validation, test] = ["train", "val", "test"].map(|name| Some(root.join(name)).filter(|p| p.is_dir()));
    // A folder with images in it is a class, whatever its name.
    let test = match test {
        Some(test) if train.is_none() && !images(&test)?.is_empty() => None,
        test => test,
    };
    if train.is_none() && test.is_none() {
        let classes = class_names(root)?;
        return Ok(Stored::whole_of(part(root, root, &classes, &mut form)?));
    }
    Stored::of([train, validation, test], |folder, known| {
        let mine = class_names(&folder)?;
        if let Some(known) = known
            && let Some(stranger) = mine.iter().find(|class| !known.contains(class))
        {
            return Err(HostError::new(
                folder.join(stranger).display(),
                "a class that the training set does not have",
                "give all parts the same class folders",
            ));
        }
        part(root, &folder, known.unwrap_or(&mine), &mut form)
    })
}

/// The image at `path`, PNG or JPEG by content, turned upright as its EXIF data say.
///
/// # Errors
///
/// An unreadable image, a JPEG that is cut short, one that is transparent in places.
pub fn image(path: &Path) -> Result<DynamicImage, HostError> {
    let fail = |problem: String, remedy: &str| HostError::new(path.display(), problem, remedy);
    let unreadable = |e: ImageError| fail(format!("not a readable image: {e}"), "replace it, or remove it");
    let bytes = fs::read(path).map_err(|e| io_error(path, &e))?;
    // The decoder fills with grey what is missing. Behind the start of the last scan FF D9 is the end.
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|two| two == marker);
    if bytes.starts_with(&[0xFF, 0xD8]) && last([0xFF, 0xD9]) < last([0xFF, 0xDA]) {
        return Err(fail("not a readable image: the JPEG is cut short".into(), "replace it, or remove it"));
    }
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|e| io_error(path, &e))?;
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let orientation = decoder.orientation().map_err(unreadable)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    if image.color().has_alpha() && image.to_rgba8().pixels().any(|pixel| pixel[3] != 255) {
        return Err(fail("is transparent in places".into(), "flatten it onto the background it is to be seen on"));
    }
    image.apply_orientation(orientation);
    Ok(image)
}

/// Height, width and channels of all images, as far as known, and the image that made them known.
struct Form {
    size: Option<[usize; 2]>,
    channels: Option<usize>,
    resize: bool,
    /// Whether the first image decides the channels.
    guessed: bool,
    first: PathBuf,
}

impl Form {
    fn new(options: &Options) -> Self {
        let Options { size, channels, .. } = *options;
        Self { size, channels, resize: size.is_some(), guessed: channels.is_none(), first: PathBuf::new() }
    }

    /// Appends the pixels of the image at `path` to `values`.
    fn append(&mut self, path: &Path, values: &mut Vec<u8>) -> Result<(), HostError> {
        let mut image = image(path)?;
        let found = [image.height() as usize, image.width() as usize];
        let [h, w] = *self.size.get_or_insert(found);
        let colour = if image.color().has_color() { 3 } else { 1 };
        let channels = *self.channels.get_or_insert(colour);
        if self.guessed && colour > channels {
            return Err(HostError::new(
                path.display(),
                format!("a colour image, where {} is grey", self.first.display()),
                "say with data.read.channels what all are to be: 1 for grey, 3 for RGB",
            ));
        }
        if self.first.as_os_str().is_empty() {
            self.first = path.to_owned();
        }
        if found != [h, w] {
            if !self.resize {
                return Err(HostError::new(
                    path.display(),
                    format!("{} x {} pixels, where {} has {h} x {w}", found[0], found[1], self.first.display()),
                    "give the size (height, width) that all images are to be resized to",
                ));
            }
            image = image.resize_exact(w as u32, h as u32, FilterType::Triangle);
        }
        match channels {
            1 => values.extend(DynamicImage::into_luma8(image).into_raw()),
            _ => values.extend(DynamicImage::into_rgb8(image).into_raw()),
        }
        Ok(())
    }
}

fn part(root: &Path, folder: &Path, classes: &[String], form: &mut Form) -> Result<Dataset, HostError> {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        for path in images(&folder.join(class))? {
            form.append(&path, &mut values)?;
            labels.push(label as u32);
        }
    }
    let ([h, w], channels) = (form.size.unwrap_or_default(), form.channels.unwrap_or_default());
    Dataset::new(name_of(root), [h, w, channels], Raw::U8(values), labels, classes.to_vec())
        .map_err(|e| HostError { place: folder.display().to_string(), ..e })
}

/// The folders in `folder`, by name; each must hold an image.
fn class_names(folder: &Path) -> Result<Vec<String>, HostError> {
    let folders: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    if folders.is_empty() {
        return Err(HostError::new(
            folder.display(),
            "no folders of classes",
            "put the images of each class into a folder of that name (png, jpg); or give another kind of data set",
        ));
    }
    let mut names = Vec::new();
    for path in folders {
        if images(&path)?.is_empty() {
            return Err(HostError::new(
                path.display(),
                "a class without images",
                "add .png or .jpg files, or remove it",
            ));
        }
        let name = path.file_name().and_then(OsStr::to_str);
        names.push(name.ok_or_else(|| HostError::new(path.display(), "a name that is not UTF-8", "rename it"))?.into());
    }
    Ok(names)
}

/// The images in `folder`, by name; none if there is no such folder.
fn images(folder: &Path) -> Result<Vec<PathBuf>, HostError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = entries(folder)?;
    paths.retain(|path| {
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or("").to_ascii_lowercase();
        path.is_file() && ["png", "jpg", "jpeg"].contains(&extension.as_str())
    });
    Ok(paths)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, HostError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| io_error(folder, &e))? {
        let entry = entry.map_err(|e| io_error(folder, &e))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use std::vec;

    fn grey(path: &Path, w: u32, h: u32, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(w, h, |x, _| Luma([value + x as u8])).save(path).unwrap();
    }

    fn rgb(path: &Path, pixel: [u8; 3]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(2, 1, Rgb(pixel)).save(path).unwrap();
    }

    #[test]
    fn reads_classes_in_order_and_passes_over_other_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        grey(&at("train/cat/2.png"), 3, 2, 20);
        grey(&at("train/cat/1.PNG"), 3, 2, 10);
        grey(&at("train/ant/9.png"), 3, 2, 90);
        grey(&at("test/cat/7.png"), 3, 2, 70);
        fs::write(at("train/cat/notes.txt"), "x").unwrap();
        fs::create_dir(at("train/.cache")).unwrap();
        let (train, test) = super::super::open(root.path().to_str().unwrap(), &Options::default()).unwrap();
        assert_eq!((train.shape, &train.classes), ([2, 3, 1], &vec!["ant".to_owned(), "cat".to_owned()]));
        assert_eq!((&train.labels, &test.labels), (&vec![0, 1, 1], &vec![1]));
        assert_eq!(train.raw, Raw::U8(vec![90, 91, 92, 90, 91, 92, 10, 11, 12, 10, 11, 12, 20, 21, 22, 20, 21, 22]));
        assert_eq!(test.raw_bytes(0)[..3], [70, 71, 72]);
    }

    #[test]
    fn a_folder_without_train_is_split() {
        let root = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            (0..5).for_each(|i| grey(&root.path().join(format!("{class}/{i}.png")), 1, 1, i));
        }
        let (train, test) = super::super::open(root.path().to_str().unwrap(), &Options::default()).unwrap();
        assert_eq!((train.len(), &test.labels), (8, &vec![0, 1]));
    }

    #[test]
    fn colour_and_size_follow_the_options() {
        let root = tempfile::tempdir().unwrap();
        rgb(&root.path().join("a/1.png"), [255, 0, 7]);
        let read = |size, channels| read(root.path(), &Options { size, channels, ..Options::default() });
        let set = read(None, None).unwrap().train.unwrap();
        assert_eq!((set.shape, set.raw), ([1, 2, 3], Raw::U8(vec![255, 0, 7, 255, 0, 7])));
        let set = read(Some([2, 4]), Some(1)).unwrap().train.unwrap();
        // Rec. 709 luma of (255, 0, 7): 0.2126 * 255 + 0.0722 * 7 = 54.7, rounded.
        assert_eq!((set.shape, set.raw), ([2, 4, 1], Raw::U8(vec![55; 8])));
        assert!(read(None, Some(2)).unwrap_err().problem.contains("2 channels"));
        assert!(read(Some([0, 4]), None).is_err());
        grey(&root.path().join("a/2.png"), 2, 2, 0);
        let error = read(None, None).unwrap_err();
        assert!(error.problem.starts_with("2 x 2 pixels, where") && error.problem.ends_with("has 1 x 2"), "{error}");
        assert_eq!(read(Some([1, 2]), None).unwrap().train.unwrap().len(), 2);
    }

    #[test]
    fn what_would_be_seen_wrongly_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let problem = || read(root.path(), &Options::default()).unwrap_err().problem;
        grey(&at("a/1.png"), 2, 1, 0);
        rgb(&at("a/2.png"), [255, 0, 7]);
        assert!(problem().starts_with("a colour image, where"));
        let jpeg = at("a/2.jpg");
        fs::remove_file(at("a/2.png")).unwrap();
        GrayImage::from_fn(2, 1, |x, _| Luma([x as u8])).save(&jpeg).unwrap();
        let whole = fs::read(&jpeg).unwrap();
        image(&jpeg).unwrap();
        fs::write(&jpeg, &whole[..whole.len() - 2]).unwrap();
        assert!(problem().contains("cut short"));
        // EXIF: turned by a quarter.
        let exif = b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        fs::write(&jpeg, [&whole[..2], exif, &whole[2..]].concat()).unwrap();
        assert_eq!((image(&jpeg).unwrap().width(), image(&jpeg).unwrap().height()), (1, 2));
        let clear = at("a/3.png");
        image::RgbaImage::from_pixel(1, 1, image::Rgba([1, 2, 3, 200])).save(&clear).unwrap();
        assert!(image(&clear).unwrap_err().problem.contains("transparent"));
        let huge = Options { size: Some([1 << 40, 1 << 40]), ..Options::default() };
        assert_eq!(read(root.path(), &huge).unwrap_err().place, "data.read.size");
    }

    #[test]
    fn bad_folders_are_refused_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let problem = || read(root.path(), &Options::default()).unwrap_err().problem;
        assert_eq!(problem(), "no folders of classes");
        fs::create_dir_all(at("a")).unwrap();
        assert_eq!(problem(), "a class without images");
        fs::write(at("a/broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
        assert!(problem().starts_with("not a readable image"));
        fs::write(at("a/broken.png"), b"").unwrap();
        assert!(problem().starts_with("not a readable image"));
        grey(&at("train/a/1.png"), 1, 1, 0);
        grey(&at("val/b/1.png"), 1, 1, 0);
        assert!(problem().starts_with("a class that the training set does not have"));
    }

    #[test]
    fn parts_are_told_by_their_folders() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let read = || read(root.path(), &Options::default()).unwrap();
        let values = |set: &Option<Dataset>| set.as_ref().map(|set| set.raw_bytes(0)[0]);
        let parts = || {
            let Stored { train, validation, test } = read();
            [values(&train), values(&validation), values(&test)]
        };
        // A class of that name.
        grey(&at("test/1.png"), 1, 1, 1);
        assert_eq!(parts(), [Some(1), None, None]);
        fs::remove_file(at("test/1.png")).unwrap();
        grey(&at("test/a/1.png"), 1, 1, 2);
        assert_eq!(parts(), [None, None, Some(2)]);
        assert_eq!(read().whole().unwrap().len(), 1);
        assert!(read().divided(&Options::default()).unwrap_err().problem.contains("no training samples"));
        grey(&at("train/a/1.png"), 1, 1, 3);
        grey(&at("val/a/1.png"), 1, 1, 4);
        assert_eq!(parts(), [Some(3), Some(4), Some(2)]);
        assert_eq!(read().whole().unwrap().raw, Raw::U8(vec![3, 4, 2]));
        fs::remove_dir_all(at("test")).unwrap();
        assert_eq!(parts(), [Some(3), None, Some(4)]);
    }
}
