//! `softedge inspect`.

use crate::boards::{BOARDS, CODE_BYTES, STACK_BYTES};
use crate::model_file::{ArenaMap, ModelFile};
use crate::report::memory_map;
use crate::run_folder;
use crate::terminal::{Table, bytes, count, dims, say};
use softedge::error::HostError;
use softedge::format::{VERSION, View};
use softedge::ops::Width;
use softedge::program::Space;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// A .soft file.
    model: PathBuf,
    /// Draw the arena over time.
    #[arg(long, value_name = "FILE.svg")]
    map: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<(), HostError> {
    args.map.iter().try_for_each(|map| run_folder::check_output(map, &[&args.model]))?;
    let model = ModelFile::open(&args.model)?;
    let (view, map) = (model.view(), ArenaMap::new(model.view()));
    header(&model);
    say!("{}\n", op_table(view, &map));
    memory(view, &map);
    say!("{}", board_table(view));
    if let Some(path) = args.map {
        run_folder::write(&path, memory_map::draw(&model.path.display().to_string(), view, &map))?;
        say!("\nmemory map   {}", path.display());
    }
    Ok(())
}

fn header(model: &ModelFile) {
    let view = model.view();
    let arithmetic = if model.is_integer() { "integers" } else { "f32" };
    say!("{}", model.path.display());
    say!("  format     version {VERSION}, {}, computes in {arithmetic}", bytes(view.bytes().len()));
    let input = view.input(0);
    say!("  input      {} {}", dims(input.shape()), input.dtype.name());
    let widths: Vec<Width> = view.ops().filter_map(|op| Some(op.decode().accumulator()?.weights)).collect();
    if !widths.is_empty() {
        let used: Vec<_> = Width::ALL.into_iter().filter(|width| widths.contains(width)).map(Width::name).collect();
        say!("  weights    {}", used.join(", "));
    }
    let output = view.output(0);
    let scale = if model.is_integer() { format!(", one unit is {:.4e}", output.scale) } else { String::new() };
    say!("  output     {} {}{scale}", dims(output.shape()), output.dtype.name());
    if view.n_labels() > 0 {
        let labels: Vec<String> = (0..view.n_labels()).map(|i| model.class(i)).collect();
        say!("  labels     {}", labels.join(", "));
    }
    say!("");
}

/// Every op with what it reads from flash and what is alive while it runs.
fn op_table(view: View<'_>, map: &ArenaMap) -> Table {
    let mut table = Table::new(&[">#", "op", "input", "output", ">MACs", ">constants", ">alive"]);
    for (i, op) in view.ops().enumerate() {
        let tensor = |operand: Option<usize>| {
            operand.map_or(String::new(), |id| {
                let t = view.tensor(id);
                format!("{} {}", dims(t.shape()), t.dtype.name())
            })
        };
        let operands = (0..op.n_ins()).filter_map(|o| op.operand(o)).map(|id| view.tensor(id));
        let constants: usize = operands.filter(|t| t.space == Space::Weights).map(|t| t.bytes()).sum();
        let nothing_or = |n: usize| if n == 0 { String::new() } else { n.to_string() };
        table.row([
            i.to_string(),
            op.kind.name().into(),
            tensor(op.operand(0)),
            tensor(op.operand(op.n_ins())),
            nothing_or(op.decode().macs() as usize),
            nothing_or(constants),
            map.live[i + 1].to_string(),
        ]);
    }
    table
}

/// What an inference takes.
pub fn memory(view: View<'_>, map: &ArenaMap) {
    let (file, weights) = (view.bytes().len(), view.size(Space::Weights));
    let macs = view.ops().map(|op| op.decode().macs()).sum();
    let bound = map.lower_bound();
    let peak_op = map.live.iter().position(|&live| live == bound).unwrap_or(0);
    let at = peak_op.checked_sub(1).and_then(|i| view.ops().nth(i));
    let at = at.map_or(String::new(), |op| format!(", at op {} {}", peak_op - 1, op.kind.name()));
    say!("  MACs       {} for one inference", count(macs));
    say!("  flash      {} bytes: weights {weights}, ops and tensors {}", file, file - weights);
    say!("  RAM        {} bytes of arena; {bound} are alive at once{at}\n", map.size);
}

/// The boards, with what the model leaves of them.
fn board_table(view: View<'_>) -> String {
    let (flash, ram) = (view.bytes().len(), view.size(Space::Arena));
    let mut table = Table::new(&["board", "core", ">flash", ">RAM", "fits"]);
    for board in &BOARDS {
        let fits = if board.fits(flash, ram) {
            "yes"
        } else if flash + CODE_BYTES > board.flash_kib << 10 {
            "no: flash"
        } else {
            "no: RAM"
        };
        let kib = |n: usize| format!("{n} KiB");
        table.row([board.name.into(), board.core.into(), kib(board.flash_kib), kib(board.ram_kib), fits.into()]);
    }
    let (code, stack) = (bytes(CODE_BYTES), bytes(STACK_BYTES));
    format!("{table}\n  (with {code} of flash for code, {stack} of RAM for the stack)")
}
