//! The command line as its users meet it: good input, bad input, damaged files, a killed run.

use softedge::train::Checkpoint;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `softedge ARGS` in `folder`.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_softedge"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
}

fn softedge(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

/// What a command that succeeds says.
fn says(folder: &Path, args: &[&str]) -> String {
    let output = softedge(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    assert_eq!(stderr, "", "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The error of a command that fails as it should: one message, no bug.
fn error(folder: &Path, args: &[&str]) -> String {
    let output = softedge(folder, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && !stderr.contains("bug"), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    stderr
}

/// A tiny model on 8 x 8 pixels.
const CONFIG: &str = r#"
[model]
name = "tiny"
classes = 3
input = { height = 8, width = 8, channels = 1, raw = "u8", mean = [80.0], std = [60.0] }

[[model.stages]]
embed = [{ channels = 8, kernel = 3, stride = 2 }]
heads = 2
depth = 1
mlp_ratio = 2.0
mixer.soft = { landmarks = { pool = [2, 2] }, local = { kernel = 3 } }

[data]
source = "data"

[train]
epochs = 4
batch = 16
shard = 8
lr = 1e-2
validation = 0.2

[quant]
samples = 64
"#;

/// An IDX file: dimensions, then bytes.
fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| file.extend(d.to_be_bytes()));
    file.extend(values);
    file
}

/// Images of `side` pixels a side: a bright row, a bright column or neither, in noise.
fn write_data(folder: &Path, side: u32) {
    fs::create_dir(folder).unwrap();
    for (name, n) in [("train", 240u32), ("t10k", 60)] {
        let labels: Vec<u8> = (0..n).map(|i| (i % 3) as u8).collect();
        let mut noise = n;
        let pixels: Vec<u8> = (0..n * side * side)
            .map(|at| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (row, column) = (at / side % side, at % side);
                let bright = [row == 3, column == 3, false][(at / (side * side) % 3) as usize];
                (noise >> 25) as u8 + if bright { 100 } else { 0 }
            })
            .collect();
        fs::write(folder.join(format!("{name}-images-idx3-ubyte")), idx(&[n, side, side], &pixels)).unwrap();
        fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), idx(&[n], &labels)).unwrap();
    }
}

/// A folder with the data and the configuration.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), 8);
    fs::write(place.path().join("tiny.toml"), CONFIG).unwrap();
    place
}

/// A folder with a finished run in `run`, quantised; made once.
static TRAINED: LazyLock<TempDir> = LazyLock::new(|| {
    let place = place();
    let said = says(place.path(), &["train", "tiny.toml", "--out", "run"]);
    assert!(said.contains("192 for training, 48 held out") && said.contains("epoch 4/4"), "{said}");
    let said = says(place.path(), &["quantise", "run"]);
    assert!(said.contains("SNR") && said.contains("FactorQ26") && said.contains("accuracy on 48"), "{said}");
    place
});

fn is_picture(path: &Path) {
    let svg = fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{}", path.display());
    assert!(!svg.contains("\"NaN") && !svg.contains("\"inf"), "{}", path.display());
}

#[test]
fn a_run_leaves_what_it_promises() {
    let run = TRAINED.path().join("run");
    for name in ["curves.svg", "confusion.svg"] {
        is_picture(&run.join(name));
    }
    let metrics = fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 5);
    for name in ["best.safetensors", "last.safetensors"] {
        Checkpoint::read(&run.join(name)).unwrap();
    }
    // The configuration it leaves is whole: the same run again.
    let place = place();
    fs::copy(run.join("config.toml"), place.path().join("again.toml")).unwrap();
    says(place.path(), &["train", "again.toml", "--threads", "1"]);
    let again = Checkpoint::read(&place.path().join("runs/tiny/last.safetensors")).unwrap();
    assert_eq!(again.tensors, Checkpoint::read(&run.join("last.safetensors")).unwrap().tensors);
}

#[test]
fn a_model_is_evaluated_inspected_and_run() {
    let place = TRAINED.path();
    let said = says(place, &["eval", "run", "--confusion", "confusion.svg"]);
    assert!(said.contains("validation, 48 samples") && said.contains("f32") && said.contains("integers"), "{said}");
    is_picture(&place.join("confusion.svg"));
    let said = says(place, &["eval", "run/model.soft", "--split", "test", "--threads", "2"]);
    let accuracy = said.lines().find_map(|l| l.trim_end().strip_suffix(" %")?.rsplit("  ").next()?.trim().parse().ok());
    assert!(accuracy > Some(80.0f64), "{said}");

    let said = says(place, &["inspect", "run/model.soft", "--map", "map.svg"]);
    assert!(said.contains("LinearI16") && said.contains("bytes of arena") && said.contains("RP2040"), "{said}");
    is_picture(&place.join("map.svg"));
    let said = says(place, &["export", "run", "--format", "f32", "--out", "f32.soft"]);
    assert!(said.contains("f32.soft"), "{said}");
    assert!(says(place, &["inspect", "f32.soft"]).contains("computes in f32"));
    says(place, &["export", "run", "--out", "again.soft"]);
    assert_eq!(fs::read(place.join("again.soft")).unwrap(), fs::read(place.join("run/model.soft")).unwrap());

    // Samples of the data set, then the same bytes as files.
    let range = ["--split", "test", "--range", "3..7"];
    let said = says(place, &[&["run", "run/model.soft", "--inputs", "in", "--outputs", "out"][..], &range].concat());
    assert!(said.contains("of 4 correct"), "{said}");
    let (inputs, outputs) = (fs::read(place.join("in")).unwrap(), fs::read(place.join("out")).unwrap());
    assert_eq!((inputs.len(), outputs.len()), (4 * 64, 4 * 3 * 2));
    says(place, &["run", "run/model.soft", "in", "--outputs", "out2"]);
    assert_eq!(fs::read(place.join("out2")).unwrap(), outputs);
    fs::write(place.join("x.npy"), npy("(4, 8, 8)", &inputs)).unwrap();
    says(place, &["run", "run/model.soft", "x.npy", "--outputs", "out3"]);
    assert_eq!(fs::read(place.join("out3")).unwrap(), outputs);
    image::GrayImage::from_raw(8, 8, inputs[..64].to_vec()).unwrap().save(place.join("x.png")).unwrap();
    says(place, &["run", "run/model.soft", "x.png", "--outputs", "out4"]);
    assert_eq!(fs::read(place.join("out4")).unwrap(), outputs[..6]);
}

/// Held-out images arrive in any form: alone, in other folders, some classes missing.
#[test]
fn held_out_images_are_evaluated_in_every_form() {
    let place = TRAINED.path();
    let test = says(place, &["eval", "run/model.soft", "--split", "test"]);
    let correct = |said: &str| -> String {
        let line = said.lines().find(|l| l.contains("integers")).unwrap();
        line.split("  ").map(str::trim).filter(|s| s.contains(" of ")).collect()
    };

    let alone = place.join("held-out");
    fs::create_dir(&alone).unwrap();
    for name in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::copy(place.join("data").join(name), alone.join(name)).unwrap();
    }
    let said = says(place, &["eval", "run/model.soft", "--data", "held-out"]);
    assert!(said.contains("all, 60 samples"), "{said}");
    assert_eq!(correct(&said), correct(&test));
    let images = alone.join("t10k-images-idx3-ubyte");
    says(place, &["run", "run/model.soft", images.to_str().unwrap(), "--outputs", "idx-out"]);
    says(place, &["run", "run/model.soft", "--split", "test", "--outputs", "set-out"]);
    assert_eq!(fs::read(place.join("idx-out")).unwrap(), fs::read(place.join("set-out")).unwrap());

    // Classes 2 and 0 as folders of pictures, which come in another order than the model's.
    let pixels = &fs::read(images).unwrap()[16..];
    for i in (0..60).filter(|i| i % 3 != 1) {
        let folder = place.join("pictures").join(["0", "", "2"][i % 3]);
        fs::create_dir_all(&folder).unwrap();
        let picture = image::GrayImage::from_raw(8, 8, pixels[i * 64..][..64].to_vec()).unwrap();
        picture.save(folder.join(format!("{i}.png"))).unwrap();
    }
    let said = says(place, &["run", "run/model.soft", "--data", "pictures"]);
    assert!(said.contains("of 40 correct"), "{said}");
    let wrong = |said: &str| {
        said.lines()
            .filter(|l| l.contains("pictures"))
            .filter(|l| {
                let columns: Vec<&str> = l.split("  ").map(str::trim).filter(|s| !s.is_empty()).collect();
                columns[1] != columns[2]
            })
            .count()
    };
    assert!(said.contains(&format!("{} of 40", 40 - wrong(&said))) && wrong(&said) < 8, "{said}");
    fs::rename(place.join("pictures/2"), place.join("pictures/shoe")).unwrap();
    let said = error(place, &["eval", "run/model.soft", "--data", "pictures"]);
    assert!(said.contains("shoe"), "{said}");
}

/// Folders of images of `data`, a name for each of its three classes, in the order of the names.
fn write_pictures(place: &Path, to: &str, names: [&str; 3]) {
    let pixels = &fs::read(place.join("data/train-images-idx3-ubyte")).unwrap()[16..];
    for i in 0..240 {
        let folder = place.join(to).join(names[i % 3]);
        fs::create_dir_all(&folder).unwrap();
        let picture = image::GrayImage::from_raw(8, 8, pixels[i * 64..][..64].to_vec()).unwrap();
        picture.save(folder.join(format!("{i}.png"))).unwrap();
    }
}

/// Folders come in the order of their names, a model has its own: every command goes by the names.
#[test]
fn classes_keep_the_order_of_the_model() {
    let place = place();
    let place = place.path();
    write_pictures(place, "pictures", ["row", "column", "neither"]);
    let named = CONFIG.replace("classes = 3", "classes = 3\nlabels = [\"row\", \"column\", \"neither\"]");
    fs::write(place.join("named.toml"), named.replace("source = \"data\"", "source = \"pictures\"")).unwrap();
    says(place, &["train", "named.toml", "--out", "run"]);
    // The rows of IDX files are of class 0, as in the model.
    let accuracy = |said: &str| -> f64 {
        let line = said.lines().find(|l| l.trim_end().ends_with('%') && l.contains(" of ")).unwrap();
        line.trim_end().trim_end_matches('%').rsplit("  ").next().unwrap().trim().parse().unwrap()
    };
    assert!(accuracy(&says(place, &["eval", "run", "--data", "data"])) > 80.0);
    says(place, &["train", "named.toml", "--data", "data", "--out", "numbered"]);
    for command in ["quantise", "export"] {
        let args = [command, "numbered", "--data", "pictures", "--epochs", "2", "--out", "tuned.soft"];
        says(place, &args);
        assert!(accuracy(&says(place, &["eval", "tuned.soft", "--data", "pictures"])) > 80.0, "{command}");
    }
    fs::rename(place.join("pictures/row"), place.join("pictures/shoe")).unwrap();
    assert!(error(place, &["quantise", "run"]).contains("column, neither, shoe"));
}

/// A NumPy array of bytes.
fn npy(shape: &str, values: &[u8]) -> Vec<u8> {
    array("|u1", shape, values)
}

/// A NumPy array of the element type `descr`, of which `values` are the bytes.
fn array(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(values);
    file
}

#[test]
fn parameters_go_to_the_official_names_and_back() {
    let place = TRAINED.path();
    says(place, &["export", "run", "--format", "safetensors", "-o", "official.safetensors"]);
    let args = ["import", "official.safetensors", "--model", "tiny.toml", "--out", "imported"];
    assert!(says(place, &args).contains("imported"));
    let accuracy = |said: String| {
        said.lines().find(|l| l.contains("best.safetensors")).unwrap().split_once("f32").unwrap().1.to_string()
    };
    let split = ["--split", "test"];
    let [there, back] = ["run", "imported"].map(|run| accuracy(says(place, &[&["eval", run][..], &split].concat())));
    assert_eq!(there, back);
    assert!(error(place, &args).contains("holds a run already"));
    let said = error(place, &["import", "official.safetensors", "--model", "fashion-nano", "--out", "other"]);
    assert!(said.contains("official.safetensors") && said.contains("patch_embed1"), "{said}");
}

#[test]
fn fine_tuning_with_rounding_changes_the_integers_only() {
    let place = TRAINED.path();
    let before = fs::read(place.join("run/best.safetensors")).unwrap();
    let said = says(place, &["quantise", "run", "--epochs", "1", "--out", "tuned.soft"]);
    assert!(said.contains("epoch 1/1"), "{said}");
    assert_ne!(fs::read(place.join("tuned.soft")).unwrap(), fs::read(place.join("run/model.soft")).unwrap());
    assert_eq!(fs::read(place.join("run/best.safetensors")).unwrap(), before);
}

/// What `quantise` chose is exported; what is older than the checkpoint is neither exported nor shown.
#[test]
fn export_keeps_what_quantise_made() {
    let place = place();
    let place = place.path();
    says(place, &["train", "tiny.toml", "--epochs", "2", "--out", "run"]);
    says(place, &["export", "run", "-o", "plain.soft"]);
    says(place, &["quantise", "run", "--epochs", "1"]);
    assert!(says(place, &["export", "run", "-o", "tuned.soft"]).contains("quantised  run/model.soft"));
    let [plain, tuned, made] = ["plain.soft", "tuned.soft", "run/model.soft"].map(|f| fs::read(place.join(f)).unwrap());
    assert!(tuned == made && tuned != plain);
    assert!(error(place, &["export", "run", "--format", "f32", "--epochs", "3"]).contains("--epochs"));
    assert!(says(place, &["eval", "run"]).contains("integers"));
    fs::File::options()
        .append(true)
        .open(place.join("run/best.safetensors"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let said = says(place, &["eval", "run"]);
    assert!(said.contains("softedge quantise run") && !said.contains("integers"), "{said}");
    says(place, &["export", "run", "-o", "again.soft"]);
    assert_eq!(fs::read(place.join("again.soft")).unwrap(), plain);
}

#[test]
fn a_killed_run_goes_on_to_the_same_weights() {
    let place = place();
    let place = place.path();
    let args = ["train", "tiny.toml", "--epochs", "40", "--set", "train.checkpoint_every=1", "--out"];
    says(place, &[&args[..], &["whole"]].concat());
    let mut child = command(place, &[&args[..], &["killed"]].concat()).stdout(Stdio::null()).spawn().unwrap();
    let (last, best) = (place.join("killed/last.safetensors"), place.join("killed/best.safetensors"));
    let started = Instant::now();
    while !best.exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let stopped = Checkpoint::read(&last).unwrap();
    assert!(!place.join("killed/confusion.svg").exists(), "it was killed too late to test anything");
    says(place, &["train", "--resume", "killed"]);
    for name in ["last.safetensors", "best.safetensors"] {
        let [whole, killed] = ["whole", "killed"].map(|run| Checkpoint::read(&place.join(run).join(name)).unwrap());
        assert_eq!(whole.tensors, killed.tensors, "{name}");
    }
    assert_ne!(stopped.tensors, Checkpoint::read(&last).unwrap().tensors);
    let epochs = |run: &str| -> Vec<String> {
        let metrics = fs::read_to_string(place.join(run).join("metrics.csv")).unwrap();
        metrics.lines().map(|l| l.split(',').take(7).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(epochs("whole"), epochs("killed"));
    // A finished run has nothing left to do.
    says(place, &["train", "--resume", "killed"]);
}

#[test]
fn a_comparison_trains_each_seed_once() {
    let place = place();
    let place = place.path();
    let deeper = CONFIG.replace("\"tiny\"", "\"deeper\"").replace("depth = 1", "depth = 2");
    fs::write(place.join("deeper.toml"), deeper).unwrap();
    let args = ["compare", "tiny.toml", "deeper.toml", "--seeds", "2", "--epochs", "2", "--out", "runs"];
    let said = says(place, &args);
    assert!(said.contains("tiny") && said.contains(" ± ") && said.contains("mean over 2 seeds"), "{said}");
    let results = || fs::read_to_string(place.join("runs/results.csv")).unwrap();
    let first = results();
    let rows: Vec<Vec<&str>> = first.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    assert_eq!([rows[1][0], rows[2][0], rows[3][1], rows[4][1]], ["tiny", "deeper", "1", "1"]);
    for row in &rows[1..] {
        assert!(row[7..].iter().all(|part| (0.0..=1.0).contains(&part.parse::<f64>().unwrap())), "{row:?}");
    }
    let model = fs::read(place.join("runs/tiny-1/model.soft")).unwrap();
    let said = says(place, &["eval", "runs/tiny-1/model.soft", "--split", "test"]);
    let correct: f64 = rows[3][10].parse::<f64>().unwrap() * 60.0;
    assert!(said.contains(&format!("{correct:.0} of 60")), "{said}");

    // Again: nothing is trained, and the same comes out.
    assert!(!says(place, &args).contains("samples/s"));
    assert_eq!((results(), fs::read(place.join("runs/tiny-1/model.soft")).unwrap()), (first.clone(), model));
    let fewer = ["compare", "tiny.toml", "deeper.toml", "--seeds", "1", "--epochs", "2", "--out", "runs"];
    says(place, &fewer);
    assert_eq!(results(), first);
    let said = error(place, &[&args[..], &["--lr", "0.1"]].concat());
    assert!(said.contains("runs/tiny-0/config.toml") && said.contains("other settings"), "{said}");
}

#[test]
fn damaged_models_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let good = fs::read(TRAINED.path().join("run/model.soft")).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(place.path().join("bad.soft"), bytes).unwrap();
        error(place.path(), &["inspect", "bad.soft"])
    };
    for cut in [0, 1, 3, 4, 127, 128, 129, good.len() / 3, good.len() / 2, good.len() - 16, good.len() - 1] {
        let said = refused(&good[..cut]);
        assert!(said.contains("bad.soft"), "{said}");
    }
    for i in 0..60 {
        let mut damaged = good.clone();
        let at = i * 7919 % good.len();
        damaged[at] ^= 1 << (i % 8);
        assert!(refused(&damaged).contains("bad.soft"), "byte {at}");
    }
    refused(&[&good[..], &[0]].concat());
    refused(b"\x89PNG\r\n\x1a\n and no model");
    for args in
        [&["eval", "bad.soft", "--data", "watch", "--split", "test"][..], &["run", "bad.soft", "--data", "watch"]]
    {
        error(place.path(), args);
    }
}

#[test]
fn damaged_checkpoints_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let good = fs::read(TRAINED.path().join("run/best.safetensors")).unwrap();
    for i in 0..12 {
        let mut bytes = good.clone();
        let at = i * 7919 % good.len();
        if i % 2 == 0 {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 1 << (i % 8)
        }
        fs::write(place.path().join("bad.safetensors"), bytes).unwrap();
        let said = error(place.path(), &["export", "bad.safetensors", "--format", "f32"]);
        assert!(said.contains("bad.safetensors"), "{said}");
    }
}

#[test]
fn every_mistake_is_named_with_its_remedy() {
    let place = place();
    let place = place.path();
    let model = TRAINED.path().join("run/model.soft");
    let model = model.to_str().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(place.join(name), bytes).unwrap();
    write("typo.toml", CONFIG.replace("epochs", "epoch").as_bytes());
    write("broken.toml", b"[model\n");
    write("nothing.toml", b"");
    write("five.toml", CONFIG.replace("classes = 3", "classes = 5").as_bytes());
    write("wide.toml", CONFIG.replace("width = 8", "width = 9").as_bytes());
    write("bounds.toml", CONFIG.replace("[quant]", "[quant]\nbounds = \"percentile\"").as_bytes());
    write("few.bin", &[0; 63]);
    write("empty.bin", &[]);
    write("set.csv", &[0; 64]);
    write("picture.bmp", &[0; 64]);
    write("x.npy", &npy("(5, 5)", &[0; 25]));
    write("text.png", b"no image");
    image::GrayImage::new(9, 8).save(place.join("wide.png")).unwrap();
    fs::create_dir(place.join("empty")).unwrap();
    for (args, parts) in [
        (&["train", "fashion-nan"][..], &["fashion-nan", "fashion-nano", "watch-nano"][..]),
        (&["train", "none.toml"], &["none.toml", "cannot be read"]),
        (&["train", "data.toml/x.toml"], &["cannot be read"]),
        (&["train", "."], &["is a folder"]),
        (&["train", "typo.toml"], &["typo.toml", "unknown field `epoch`", "line"]),
        (&["train", "broken.toml"], &["broken.toml", "line 1"]),
        (&["train", "nothing.toml"], &["nothing.toml", "missing field `model`"]),
        (&["train", "five.toml"], &["3 classes where the model has 5"]),
        (&["train", "wide.toml"], &["8 x 8 x 1 where the model takes 8 x 9 x 1"]),
        (&["train", "tiny.toml", "--data", "nowhere"], &["nowhere", "fashion-mini"]),
        (&["train", "tiny.toml", "--data", "empty"], &["empty"]),
        (&["train", "soft_tiny"], &["data.source", "--data"]),
        (&["train", "tiny.toml", "--batch", "15"], &["train.batch", "multiple"]),
        (&["train", "tiny.toml", "--batch", "4096"], &["train.batch", "192 training samples"]),
        (&["train", "tiny.toml", "--set", "train.lrr=1"], &["train.lrr=1", "unknown field"]),
        (&["train", "tiny.toml", "--set", "model.stages.0.heads=3"], &["stages[0].heads", "8 channels"]),
        (&["train", "--resume", "nowhere"], &["nowhere"]),
        (&["train", "tiny.toml", "--set", "model.name=../x"], &["name: must be", "\"../x\""]),
        (&["train", "tiny.toml", "--set", "model.name=.", "--out", "named"], &["name: must be"]),
        (&["train", "tiny.toml", "--data", "wide.png"], &["wide.png", "one image", "folder"]),
        (&["train", "tiny.toml", "--set", "quant.bounds=percentile"], &["{ percentile = 99.99 }"]),
        (&["train", "bounds.toml"], &["bounds.toml", "line", "{ percentile = 99.99 }"]),
        (&["train", "tiny.toml", "--out", "tiny.toml/x"], &["cannot be made"]),
        (&["eval", "nowhere"], &["nowhere"]),
        (&["eval", "empty"], &["best.safetensors"]),
        (&["eval", model, "--data", "watch", "--split", "test"], &["takes 8x8x1", "1x128x6"]),
        (&["quantise", "few.bin"], &["few.bin"]),
        (&["export", "empty"], &["empty"]),
        (&["inspect", "."], &["is a folder"]),
        (&["inspect", "none.soft"], &["none.soft", "cannot be read"]),
        (&["inspect", "few.bin"], &["few.bin"]),
        (&["inspect", model, "--map", "nowhere/map.svg"], &["nowhere/map.svg", "cannot be written"]),
        (&["run", model, "few.bin"], &["few.bin", "63 bytes", "has 64"]),
        (&["run", model, "empty.bin"], &["empty.bin", "0 bytes"]),
        (&["run", model, "x.npy"], &["x.npy", "[5, 5]", "[8, 8, 1]"]),
        (&["run", model, "text.png"], &["text.png", "not a readable image"]),
        (&["run", model, "wide.png"], &["wide.png", "9 wide", "--resize"]),
        (&["run", model, "empty"], &["is a folder"]),
        (&["run", model, "set.csv"], &["set.csv", "--data"]),
        (&["run", model, "picture.bmp"], &["picture.bmp", "\"bmp\"", ".png"]),
        (&["compare", "tiny.toml", "tiny.toml"], &["tiny", "as another model"]),
        (&["compare", "tiny.toml", "--set", "train.seed=4"], &["train.seed", "--seeds"]),
        (&["run", model, "--data", "data", "--split", "test", "--range", "59..61"], &["59..61", "60 samples"]),
        (&["run", "none.soft"], &["none.soft"]),
        (&["presets", "--show", "nope"], &["nope", "fashion-nano"]),
    ] {
        let said = error(place, args);
        for part in parts {
            assert!(said.contains(part), "{args:?}: no `{part}` in {said}");
        }
    }
    assert!(!place.join("runs/tiny").exists(), "a run that could not start leaves no folder");
    says(place, &["run", model, "wide.png", "--resize"]);
    // A model that has left its run does not know its data.
    fs::copy(model, place.join("alone.soft")).unwrap();
    assert!(error(place, &["eval", "alone.soft"]).contains("--data"));
    let said = error(place, &["eval", "alone.soft", "--data", "data", "--split", "train"]);
    assert!(said.contains("--split test"), "{said}");
    assert!(says(place, &["eval", "alone.soft", "--data", "data"]).contains("all, 300 samples"));
    says(place, &["eval", "alone.soft", "--data", "data", "--split", "test"]);
    fs::copy(model, place.join("alone.bin")).unwrap();
    says(place, &["eval", "alone.bin", "--data", "data"]);
    // A folder is not overwritten.
    fs::create_dir(place.join("run")).unwrap();
    write("run/config.toml", b"");
    assert!(error(place, &["train", "tiny.toml", "--out", "run"]).contains("--resume run"));
    // Wrong usage is clap's.
    for args in [
        &["train"][..],
        &["frobnicate"],
        &["run", model, "--range", "5..5"],
        &["eval", "x", "--split", "most"],
        &["demo", "--epochs", "0"],
        &["eval", model, "--read", "label=0"],
    ] {
        assert_eq!(softedge(place, args).status.code(), Some(2), "{args:?}");
    }
}

/// A test set alone is evaluated in every form; a validation set of the data's own is what training watches.
#[test]
fn parts_of_data_are_taken_as_they_are_stored() {
    let trained = TRAINED.path();
    let model = trained.join("run/model.soft");
    let model = model.to_str().unwrap();
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let pixels = fs::read(trained.join("data/t10k-images-idx3-ubyte")).unwrap()[16..].to_vec();
    let labels: Vec<u8> = (0..60).map(|i| (i % 3) as u8).collect();
    fs::create_dir(place.join("arrays")).unwrap();
    fs::write(place.join("arrays/x_test.npy"), npy("(60, 8, 8)", &pixels)).unwrap();
    fs::write(place.join("arrays/y_test.npy"), npy("(60,)", &labels)).unwrap();
    for i in 0..60 {
        for (part, from) in [("held/test", 0), ("parts/train", 0), ("parts/val", 30), ("parts/test", 45)] {
            let folder = place.join(part).join((i % 3).to_string());
            fs::create_dir_all(&folder).unwrap();
            let picture = image::GrayImage::from_raw(8, 8, pixels[i * 64..][..64].to_vec()).unwrap();
            if i >= from {
                picture.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    let correct = |data: &str, split: &str| -> String {
        let said = says(place, &["eval", model, "--data", data, "--split", split]);
        assert!(said.contains("60 samples"), "{said}");
        said.lines().find_map(|l| l.split("  ").find(|s| s.contains(" of 60"))).unwrap().trim().to_string()
    };
    assert_eq!(correct("arrays", "all"), correct("held", "test"));
    assert_eq!(correct("arrays", "test"), correct("held", "all"));
    fs::write(place.join("tiny.toml"), CONFIG).unwrap();
    let said = error(place, &["train", "tiny.toml", "--data", "held"]);
    assert!(said.contains("no training samples"), "{said}");
    let said = says(place, &["train", "tiny.toml", "--data", "parts", "--epochs", "1"]);
    assert!(said.contains("60 for training, 30 held out"), "{said}");
}

/// A model without labels, data in other units, data stored in another way.
#[test]
fn what_data_mean_is_not_guessed_in_silence() {
    let trained = TRAINED.path();
    let place = place();
    let place = place.path();
    let run = |args: &[&str]| -> (String, String) {
        let output = softedge(place, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    says(trained, &["export", "run", "--format", "safetensors", "-o", "unnamed.safetensors"]);
    let official = trained.join("unnamed.safetensors");
    let import = ["import", official.to_str().unwrap(), "--model", "tiny.toml", "--out"];
    write_pictures(place, "pictures", ["column", "neither", "row"]);
    says(place, &[&import[..], &["unnamed"]].concat());
    assert_eq!(run(&["eval", "unnamed", "--data", "data"]).1, "");
    let (_, warned) = run(&["eval", "unnamed", "--data", "pictures"]);
    assert!(warned.starts_with("warning: ") && warned.contains("column, neither, row"), "{warned}");
    // With labels there is nothing to warn of, and nothing to take from the data.
    fs::write(place.join("labels.txt"), "row\ncolumn\nneither\n").unwrap();
    says(place, &[&import[..], &["named", "--labels", "labels.txt", "--data", "pictures"]].concat());
    assert!(fs::read_to_string(place.join("named/config.toml")).unwrap().contains("\"row\""));
    says(place, &["eval", "named", "--split", "test"]);
    says(place, &[&import[..], &["taken", "--data", "pictures"]].concat());
    assert!(fs::read_to_string(place.join("taken/config.toml")).unwrap().contains("\"neither\""));
    for (data, problem) in [("watch", "samples of 1x128x6"), ("nowhere", "neither a path")] {
        let said = error(place, &[&import[..], &["never", "--data", data]].concat());
        assert!(said.contains(problem), "{said}");
    }
    fs::write(place.join("labels.txt"), "row\n").unwrap();
    let said = error(place, &[&import[..], &["never", "--labels", "labels.txt"]].concat());
    assert!(said.contains("labels: must name 3 classes, found 1"), "{said}");
    assert!(!place.join("never").exists());

    // Pixels from 0 to 1 for a model of pixels from 0 to 255.
    says(trained, &["export", "run", "--format", "f32", "--out", "units.soft"]);
    let f32s = trained.join("units.soft");
    let f32s = f32s.to_str().unwrap();
    let pixels = &fs::read(place.join("data/t10k-images-idx3-ubyte")).unwrap()[16..];
    let scaled = |by: f32| pixels.iter().flat_map(|p| (f32::from(*p) / by).to_le_bytes()).collect::<Vec<u8>>();
    fs::create_dir(place.join("floats")).unwrap();
    fs::write(place.join("floats/y.npy"), npy("(60,)", &(0..60).map(|i| i % 3).collect::<Vec<u8>>())).unwrap();
    let images = place.join("floats/X.npy");
    fs::write(&images, array("<f4", "(60, 8, 8, 1)", &scaled(255.0))).unwrap();
    let said = error(place, &["eval", f32s, "--data", "floats"]);
    assert!(said.contains("deviate by 60") && said.contains("0 to 255"), "{said}");
    assert!(run(&["run", f32s, "floats/X.npy"]).1.contains("deviate by 60"));
    fs::write(&images, array("<f4", "(60, 8, 8, 1)", &scaled(1.0))).unwrap();
    says(place, &["eval", f32s, "--data", "floats"]);

    // A table whose label is not where the run's was.
    let rows: String = (0..20).map(|i| format!("{},{},{},{}\n", i % 2, 9 * i, 80 * (i % 2), 5)).collect();
    fs::write(place.join("train.csv"), rows.lines().map(|l| format!("{},{}\n", &l[2..], &l[..1])).collect::<String>())
        .unwrap();
    fs::write(place.join("moved.csv"), rows).unwrap();
    let set = "model.stages=[{ embed = [{ channels = 4, kernel = 1 }], depth = 1, mixer = \"softmax\" }]";
    let args = ["train", "watch-nano", "--data", "train.csv", "--batch", "8", "--epochs", "2", "--set", set];
    says(place, &[&args[..], &["--set", "train.shard=8", "--out", "rows"]].concat());
    let same = says(place, &["eval", "rows", "--data", "train.csv"]);
    let moved = says(place, &["eval", "rows", "--data", "moved.csv", "--read", "label=0"]);
    let figures = |said: &str| said.lines().find(|l| l.contains("of 20")).unwrap().to_string();
    assert_eq!(figures(&same), figures(&moved));
    says(place, &["quantise", "rows", "--data", "moved.csv", "--read", "label=0", "-o", "rows.soft"]);
    says(place, &["run", "rows.soft", "--data", "moved.csv", "--read", "label=0", "--range", "0..2"]);
    let said = error(place, &["eval", "rows", "--data", "moved.csv", "--read", "lable=0"]);
    assert!(said.contains("--read lable=0") && said.contains("`lable`"), "{said}");
}

/// What is read or belongs to a run is not written over, whatever it is called.
#[test]
fn outputs_do_not_overwrite_inputs() {
    let place = place();
    let place = place.path();
    let run = TRAINED.path().join("run");
    fs::create_dir(place.join("run")).unwrap();
    for name in ["config.toml", "best.safetensors", "last.safetensors", "model.soft"] {
        fs::copy(run.join(name), place.join("run").join(name)).unwrap();
    }
    fs::copy(run.join("best.safetensors"), place.join("model.safetensors")).unwrap();
    fs::write(place.join("x.npy"), npy("(8, 8)", &[7; 64])).unwrap();
    let before = |name: &&str| fs::read(place.join(name)).unwrap();
    let files = ["run/config.toml", "run/best.safetensors", "run/model.soft", "model.safetensors", "x.npy"];
    let there: Vec<Vec<u8>> = files.iter().map(before).collect();
    for args in [
        &["inspect", "run/model.soft", "--map", "./run/model.soft"][..],
        &["export", "run", "-o", "run/best.safetensors"],
        &["export", "run", "--format", "f32", "-o", "run/last.safetensors"],
        &["export", "run", "-o", "run/config.toml"],
        &["export", "run", "-o", "model.safetensors"],
        &["export", "model.safetensors", "--format", "safetensors"],
        &["quantise", "run", "-o", "run/best.safetensors"],
        &["eval", "run", "--confusion", "run/model.soft"],
        &["eval", "run/model.soft", "--confusion", "run/model.soft"],
        &["run", "run/model.soft", "x.npy", "--outputs", "x.npy"],
        &["run", "run/model.soft", "x.npy", "--inputs", "run/model.soft"],
    ] {
        let said = error(place, args);
        assert!(said.contains("would be overwritten") && said.contains("name another file"), "{said}");
    }
    assert!(error(place, &["run", "run/model.soft", "x.npy", "--inputs", "a", "--outputs", "a"]).contains("name two"));
    assert_eq!(files.iter().map(before).collect::<Vec<_>>(), there);
    // What a command made before is renewed.
    for _ in 0..2 {
        says(place, &["export", "run", "--format", "safetensors", "-o", "official.safetensors", "--threads", "1"]);
        says(place, &["quantise", "run"]);
    }
}

/// Integers bound what training does not: said before it is too late, or refused.
#[test]
fn attention_that_integers_do_not_hold_is_named() {
    let place = place();
    let place = place.path();
    let newton = CONFIG.replace("pool = [2, 2] }", "pool = [2, 2] }, inverse = { newton = 8 }, ridge = 0.0");
    fs::write(place.join("newton.toml"), newton).unwrap();
    says(place, &["train", "newton.toml", "--epochs", "1", "--out", "newton"]);
    let output = softedge(place, &["quantise", "newton"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.starts_with("warning: stages[0].mixer.soft: with a ridge of 0"), "{said}");

    // 256 landmarks, on 16 x 16 tokens.
    fs::remove_dir_all(place.join("data")).unwrap();
    write_data(&place.join("data"), 16);
    let many = CONFIG
        .replace("height = 8, width = 8", "height = 16, width = 16")
        .replace("stride = 2", "stride = 1")
        .replace("pool = [2, 2]", "pool = [16, 16]");
    fs::write(place.join("many.toml"), many).unwrap();
    says(place, &["train", "many.toml", "--epochs", "1", "--out", "many"]);
    let said = error(place, &["quantise", "many", "--samples", "4"]);
    assert!(said.contains("at most 255"), "{said}");
}

/// What would be meaningless is refused before it is written: ranges from other data, a changed run.
#[test]
fn models_and_runs_keep_to_their_data_and_settings() {
    let place = TRAINED.path();
    for (command, data) in [("quantise", "fashion-mini"), ("export", "watch")] {
        let said = error(place, &[command, "run", "--data", data, "--out", "never.soft"]);
        assert!(said.contains(data) && said.contains("8x8x1"), "{said}");
    }
    let rows: String = (0..40).map(|i| format!("{}0.5,{}\n", "1,".repeat(63), i % 3)).collect();
    fs::write(place.join("fractions.csv"), rows).unwrap();
    let said = error(place, &["quantise", "run", "--data", "fractions.csv", "--out", "never.soft"]);
    assert!(said.contains("1x1x64 where the model takes 8x8x1"), "{said}");
    assert!(!place.join("never.soft").exists());
    for (setting, named) in [("quant.bounds={ percentile = 10 }", "quant.bounds"), ("quant.lr=-1.0", "quant.lr")] {
        let said = error(place, &["train", "tiny.toml", "--set", setting, "--out", "never"]);
        assert!(said.contains(named), "{said}");
    }

    says(place, &["train", "tiny.toml", "--epochs", "1", "--out", "edited"]);
    let config = place.join("edited/config.toml");
    let edited = fs::read_to_string(&config).unwrap().replace("epochs = 1 ", "epochs = 5 ");
    fs::write(&config, edited).unwrap();
    let said = error(place, &["train", "--resume", "edited"]);
    let appended = fs::read_to_string(&config).unwrap().replace("epochs = 5 ", "epochs = 1 ");
    fs::write(&config, appended.replace("[data]", "[[model.stages]]\nembed = [{ channels = 8, kernel = 3, stride = 1 }]\nheads = 2\ndepth = 1\nmixer = \"softmax\"\n\n[data]")).unwrap();
    assert!(error(place, &["train", "--resume", "edited"]).contains("edited/config.toml"));
    assert!(said.contains("edited/config.toml") && said.contains("epochs = 5"), "{said}");
}

#[test]
fn presets_are_files() {
    let place = place();
    let listed = says(place.path(), &["presets"]);
    assert!(listed.contains("fashion-nano ") && listed.contains("soft_huge"));
    let camera = listed.lines().find(|line| line.contains("camera-224")).unwrap();
    assert!(camera.contains(" 152.4 KiB "), "{camera}");
    let shown = says(place.path(), &["presets", "--show", "watch-nano"]);
    fs::write(place.path().join("mine.toml"), &shown).unwrap();
    let error = error(place.path(), &["train", "mine.toml", "--data", "data"]);
    assert!(error.contains("8 x 8 x 1 where the model takes 1 x 128 x 6"), "{error}");
}

#[test]
fn a_preset_takes_the_shape_of_the_data() {
    let place = tempfile::tempdir().unwrap();
    write_data(&place.path().join("data"), 16);
    let said = says(place.path(), &["train", "fashion-nano", "--data", "data", "--epochs", "1", "--batch", "32"]);
    assert!(said.contains("fashion-nano fitted to data: input 16x16x1 u8, mean and deviation of"), "{said}");
    assert!(said.contains(", 3 classes\n"), "{said}");
    assert!(place.path().join("runs/fashion-nano/best.safetensors").exists());
}

/// Its firmware is that of the example, its commands exist with their options.
#[test]
fn the_readme_shows_what_there_is() {
    let readme = include_str!("../README.md");
    let block = |start: &str| readme.split_once(start).unwrap().1.split_once("```").unwrap().0;
    let firmware = include_str!("../firmware-examples/minimal/src/main.rs");
    let lines = |code: &str| -> Vec<String> {
        code.lines().map(|l| l.split("//").next().unwrap().trim().to_string()).filter(|l| !l.is_empty()).collect()
    };
    for line in lines(block("```rust,ignore\n")) {
        assert!(lines(firmware).contains(&line), "not in the example: {line}");
    }

    let place = tempfile::tempdir().unwrap();
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("cargo softedge ")).collect();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        let args = command.split('#').next().unwrap().split_whitespace();
        says(place.path(), &args.chain(["--help"]).collect::<Vec<_>>());
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = TRAINED.path();
    let mut child = command(place, &["quantise", "run", "-o", "piped.soft"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "");
    assert!(place.join("piped.soft").exists(), "what is written does not depend on a reader");
}
