//! The command line.
#![forbid(unsafe_code)]

mod boards;
mod commands;
mod config;
mod data;
mod emulator;
mod infer;
mod integers;
mod model_file;
mod presets;
mod report;
mod run_folder;
mod terminal;
mod watch;

use clap::Parser;
use std::process::ExitCode;

/// SOFT, the softmax-free transformer, from a workstation to a microcontroller.
#[derive(Parser)]
#[command(name = "softedge", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    // A bug in here is said in one line, like any other error.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
        let what = info.payload_as_str().unwrap_or("no message");
        eprintln!("error: softedge has a bug{place}: {what}; please report it with the command you gave");
    }));
    let ended = std::panic::catch_unwind(|| command.run());
    match ended {
        // As a shell expects it: 128 and the number of the signal.
        Ok(Ok(())) if watch::interrupted() => ExitCode::from(130),
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}
