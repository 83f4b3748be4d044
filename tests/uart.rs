//! A device that takes models over its UART: a good one replaces the old one, anything else leaves it running.
//!
//! Needs QEMU and the bare-metal targets: `./test.sh` gets them and runs this test; plain `cargo test`
//! leaves it out.

mod common;
#[path = "common/firmware.rs"]
mod firmware;
#[path = "../firmware-examples/minimal/src/window.rs"]
mod window;

use common::quantised;
use firmware::{bare_cargo, succeed};
use softedge::engine::{Buffer, Integers, Loaded};
use softedge::format::{HEADER_BYTES, View, write};
use softedge::model::preset;
use softedge::program::{Plan, Space};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;
use window::WINDOW;

const TARGET: &str = "thumbv7em-none-eabihf";

#[test]
fn only_a_good_model_replaces_the_one_that_runs() {
    let gesture = fs::read("firmware-examples/minimal/src/gesture.soft").unwrap();
    let pictures = fs::read("firmware-examples/two-models/src/fashion.soft").unwrap();
    let (untrained, large) = (exported("watch-nano"), exported("fashion-micro"));
    let mut damaged = gesture.clone();
    damaged[gesture.len() / 2] ^= 1;

    let mut device = Device::start();
    assert_eq!(device.line(), "no model yet");
    device.refuses(&gesture[..gesture.len() / 8], "the line went silent", "no model yet");
    device.takes(&gesture);
    let old = recognised(&gesture);
    for (file, reason) in [
        (&damaged[..], "checksum 0x"),
        (&[], "the line went silent"),
        (&gesture[..HEADER_BYTES - 1], "the line went silent"),
        (&gesture[..gesture.len() / 8], "the line went silent"),
        (&[0; 2000], "not a .soft model"),
        (&large[..HEADER_BYTES], &format!("the file needs {} bytes and has ", large.len())),
        (&pictures, "the model's raw input is u8 and the program's i16"),
    ] {
        device.refuses(file, reason, &old);
    }
    // Again and again: no memory is lost.
    for _ in 0..2 {
        device.takes(&untrained);
        device.takes(&gesture);
    }
    device.refuses(&[0xff; HEADER_BYTES], "not a .soft model", &old);
}

/// A device, and the lines it writes.
struct Device {
    qemu: Child,
    uart: ChildStdin,
    lines: Receiver<String>,
}

impl Device {
    fn start() -> Self {
        let cargo = |command: &str| {
            let mut cargo = bare_cargo("loaded");
            cargo.args([command, "--quiet", "--release", "--target", TARGET]);
            cargo
        };
        succeed(&mut cargo("build"));
        let mut qemu = cargo("run").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let written = BufReader::new(qemu.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || written.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { uart: qemu.stdin.take().unwrap(), qemu, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(120)).expect("a line from the device")
    }

    /// Sends a file; gives the answer.
    fn send(&mut self, file: &[u8]) -> String {
        self.uart.write_all(b"\n").unwrap();
        while self.line() != "ready" {}
        self.uart.write_all(file).unwrap();
        self.line()
    }

    fn takes(&mut self, model: &[u8]) {
        assert_eq!(self.send(model), recognised(model));
    }

    fn refuses(&mut self, file: &[u8], reason: &str, old: &str) {
        let answer = self.send(file);
        assert!(answer.starts_with(&format!("refused: {reason}")), "{answer} instead of {reason}");
        assert_eq!(self.line(), old);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Cargo has become QEMU. If it ended by itself, there is nothing to end.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A model of the preset that is whole, but knows nothing.
fn exported(name: &str) -> Vec<u8> {
    let integer = quantised(&preset(name).unwrap()).integer;
    write(&integer, &Plan::new(&integer)).unwrap()
}

/// What the host makes of the motion that the device has.
fn recognised(model: &[u8]) -> String {
    let file = Buffer::copy_of(model);
    let mut arena = Buffer::zeroed(View::new_checked(file.bytes()).unwrap().size(Space::Arena));
    let mut model = Loaded::<Integers>::new(file.bytes(), arena.bytes_mut()).unwrap();
    model.input::<i16>().unwrap().copy_from_slice(WINDOW.as_flattened());
    let scores = model.run::<i16>().unwrap();
    let best = scores.argmax();
    format!("{} {}", scores.label(best).unwrap_or("?"), scores.values()[best])
}
