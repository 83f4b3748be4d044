//! Hostile model files, with a checksum that is right: the check rejects them, or they run without a
//! panic and without touching memory that is not theirs.
//!
//! Overflow checks and debug assertions are on in tests, so that silent wrapping counts as a panic.

mod common;

use common::{Random, unfrozen};
use softedge::Error;
use softedge::engine::{Buffer, Every, Executor, Memory};
use softedge::format::{VERSION, View, write};
use softedge::model::{
    Config, ConvLayer, Drop as Dropped, Gelu, Head, Input, Inverse, Landmarks, Local, Mixer, Mode, Norm, Per, Raw,
    Soft, Stage, build,
};
use softedge::ops::input::{InputI16, InputU8};
use softedge::ops::linear::LinearI16W16;
use softedge::ops::{DType, Tick, Width};
use softedge::program::{Kind, Op, Plan, Program, Role, Space, TensorId};
use softedge::quant::{Bounds, calibrate, freeze, quantise};
use softedge::train::{self, Step};
use std::collections::BTreeMap;
use std::fmt::Write;

// The files.

/// A model of two stages small enough for its file to be mostly records.
fn tiny(mixers: [Mixer; 2], head: Head, raw: Raw) -> Config {
    let soft = |mixer, norm| Stage {
        embed: vec![ConvLayer { channels: 4, kernel: 3, stride: 2, batch_norm: true, relu: true }],
        depth: 1,
        heads: 2,
        mixer,
        mlp_ratio: 1.0,
        norm,
        gelu: Gelu::Tanh,
        layer_norm_eps: 1e-5,
        position: Some([2, 2]),
        drop: Dropped::Path,
    };
    let [first, second] = mixers;
    Config {
        name: "tiny".into(),
        classes: 3,
        labels: vec!["a".into(), "b".into(), "ö".into()],
        head,
        drop_rate: 0.1,
        linear_std: None,
        input: Input { height: 8, width: 8, channels: 1, raw, mean: vec![100.0], std: vec![60.0] },
        stages: vec![soft(first, Norm::Pre), soft(second, Norm::Post)],
    }
}

fn newton() -> Mixer {
    Mixer::Soft(Soft {
        landmarks: Landmarks::Conv(2),
        inverse: Inverse::Newton(3),
        ridge: 0.0,
        sym_norm: true,
        mean: false,
        local: Some(Local { kernel: 3, per: Per::Head }),
    })
}

fn direct() -> Mixer {
    Mixer::Soft(Soft {
        landmarks: Landmarks::Pool([2, 2]),
        inverse: Inverse::Ldlt,
        ridge: 0.01,
        sym_norm: false,
        mean: true,
        local: None,
    })
}

fn bytes_of(program: &Program) -> Vec<u8> {
    write(program, &Plan::new(program)).unwrap()
}

/// Valid files of every sort: integers, f32 with constants and with parameters, training.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let soft = tiny([direct(), newton()], Head::Mean, Raw::U8);
    let softmax =
        tiny([Mixer::Depthwise(softedge::model::Depthwise { kernel: 3 }), Mixer::Softmax], Head::ClassToken, Raw::I16);
    let mut files = vec![];
    for (name, config, weights) in [
        ("integer SOFT", &soft, Width::Int8),
        ("integer SOFT, int4", &soft, Width::Int4),
        ("integer softmax", &softmax, Width::Int8),
        ("integer softmax, int16", &softmax, Width::Int16),
    ] {
        let (program, values) = unfrozen(config);
        let frozen = freeze(&program, |name| values.get(name).map(Vec::as_slice)).unwrap();
        let fill = |i: usize, raw: &mut [f32]| {
            let mut random = Random::new(i as u64);
            raw.fill_with(|| random.within(0, 255) as f32);
        };
        let calibration = calibrate(&frozen, 8, fill, Bounds::MinMax).unwrap();
        let raw = if config.input.raw == Raw::I16 { DType::I16 } else { DType::U8 };
        let mut integer = quantise(&frozen, &calibration, raw, weights).unwrap();
        integer.labels.clone_from(&config.labels);
        files.push((name, bytes_of(&integer)));
        if name == "integer SOFT" {
            files.push(("f32 with constants", bytes_of(&frozen)));
            files.push(("f32 with parameters", bytes_of(&program)));
        }
    }
    let built = build(&soft, Mode::Train { batch: 2, label_smoothing: 0.1 }).unwrap();
    let step = Step::new(built, &train::Config::default()).unwrap();
    files.push(("training step", bytes_of(&step.compiled.program)));
    files
}

fn put(bytes: &mut [u8], word: usize, value: u32) {
    bytes[4 * word..][..4].copy_from_slice(&value.to_le_bytes());
}

fn word(bytes: &[u8], word: usize) -> u32 {
    u32::from_le_bytes(bytes[4 * word..][..4].try_into().unwrap())
}

/// Makes the checksum, word 3, that of the words after it.
fn seal(bytes: &mut [u8]) {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut crc, mut bit) = (i as u32, 0);
            while bit < 8 {
                crc = if crc % 2 == 1 { (crc / 2) ^ 0xedb8_8320 } else { crc / 2 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    let crc = !bytes[16..].iter().fold(!0, step);
    put(bytes, 3, crc);
}

// The runs.

/// Says which case it was if the test panics.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in this case: {}", self.0);
        }
    }
}

/// How many files were rejected and how many accepted and run.
#[derive(Default, Debug)]
struct Tally {
    rejected: usize,
    run: usize,
    too_large: usize,
}

/// More than this no test has time or memory for.
const MOST_MACS: u64 = 1 << 20;
const MOST_BYTES: usize = 1 << 20;

/// Checks a file and, if it is accepted, runs it in banks of memory that start with `filler`.
fn survive(bytes: &[u8], filler: &[u8], tally: &mut Tally) {
    let file = Buffer::copy_of(bytes);
    let view = match View::new_checked(file.bytes()) {
        Ok(view) => view,
        Err(error) => {
            assert!(!error.summary().is_empty());
            tally.rejected += 1;
            return;
        }
    };
    for i in 0..view.n_labels() + 1 {
        assert_eq!(view.label(i).is_some(), i < view.n_labels());
    }
    let macs = view.ops().fold(0u64, |macs, record| macs.saturating_add(record.decode().macs()));
    let memory: usize = Space::ALL.iter().map(|space| view.size(*space)).sum();
    if macs > MOST_MACS || memory > MOST_BYTES {
        tally.too_large += 1;
        return;
    }

    const GUARD: [u8; 64] = [0xa5; 64];
    let mut banks = Space::ALL.map(|space| {
        let size = view.size(space);
        let mut bank = Buffer::zeroed(size + 2 * GUARD.len());
        let (before, rest) = bank.bytes_mut().split_at_mut(GUARD.len());
        let (bank_bytes, after) = rest.split_at_mut(size);
        before.copy_from_slice(&GUARD);
        after.copy_from_slice(&GUARD);
        bank_bytes.iter_mut().zip(filler.iter().cycle()).for_each(|(to, from)| *to = *from);
        bank
    });
    let [arena, _, params, grads, state] = banks.each_mut().map(|bank| {
        let end = bank.bytes().len() - GUARD.len();
        &mut bank.bytes_mut()[GUARD.len()..end]
    });
    let memory = Memory::new(arena).with(Space::Params, params).with(Space::Grads, grads).with(Space::State, state);
    let mut executor = Executor::<Every>::new(view, memory).expect("memory of the sizes it asked for");
    executor.run(&Tick::default());
    for bank in &banks {
        let bytes = bank.bytes();
        assert_eq!(bytes[..GUARD.len()], GUARD, "memory before a bank");
        assert_eq!(bytes[bytes.len() - GUARD.len()..], GUARD, "memory after a bank");
    }
    assert_eq!(file.bytes(), bytes, "the weights");
    tally.run += 1;
}

/// What memory holds before a run: zeros, NaNs and -1, the extremes, anything.
fn filler(random: &mut Random) -> Vec<u8> {
    let anything: Vec<u8> = (0..256).map(|_| random.bits() as u8).collect();
    match random.size(6) {
        1 => vec![0],
        2 => vec![0xff],
        3 => vec![0xff, 0xff, 0xff, 0x7f],
        4 => vec![0, 0, 0, 0x80],
        // f32 from 0.5 to 2.
        5 => anything.chunks(4).flat_map(|w| [w[0], w[1], w[2], 0x3f]).collect(),
        _ => anything,
    }
}

#[test]
fn every_byte_of_a_file_may_be_wrong() {
    let mut random = Random::new(1);
    for (name, bytes) in files() {
        let mut tally = Tally::default();
        let weights = word(&bytes, 20) as usize;
        for i in 0..bytes.len() {
            // Records matter more than the values of constants.
            let flips: &[u8] = match i {
                _ if i < weights => &[1, 0x80, 0xff],
                _ if i % 5 == 0 => &[0x81],
                _ => &[],
            };
            for flip in flips {
                let case = Case(format!("{name}: byte {i} ^ {flip:#x}"));
                let mut hostile = bytes.clone();
                hostile[i] ^= flip;
                if !(12..16).contains(&i) {
                    seal(&mut hostile);
                }
                survive(&hostile, &filler(&mut random), &mut tally);
                drop(case);
            }
        }
        assert!(tally.rejected > 0 && tally.run > 0, "{name}: {tally:?}");
    }
}

#[test]
fn a_file_may_end_anywhere() {
    for (name, bytes) in files() {
        let mut tally = Tally::default();
        let weights = word(&bytes, 20) as usize;
        for end in 0..bytes.len() {
            let _case = Case(format!("{name}: {end} of {} bytes", bytes.len()));
            let mut cut = bytes[..end].to_vec();
            survive(&cut, &[0], &mut tally);
            if end >= 128 && end % if end < weights { 4 } else { 16 } == 0 {
                put(&mut cut, 2, end as u32);
                seal(&mut cut);
                survive(&cut, &[0], &mut tally);
            }
        }
        let mut longer = bytes.clone();
        longer.extend([0; 16]);
        survive(&longer, &[0], &mut tally);
        put(&mut longer, 2, bytes.len() as u32 + 16);
        seal(&mut longer);
        survive(&longer, &[0], &mut tally);
        assert_eq!((tally.run, tally.too_large), (0, 0), "{name}");
    }
}

#[test]
fn older_and_newer_versions_are_refused_alike() {
    let (_, bytes) = &files()[0];
    for version in [VERSION - 1, VERSION + 1] {
        let mut other = bytes.clone();
        put(&mut other, 1, version.into());
        seal(&mut other);
        let error = View::new_checked(&other).unwrap_err();
        assert_eq!(error, Error::Version { needed: VERSION, found: version });
        let said = error.to_string();
        assert!(said.contains(&format!("version {version} and this library reads version {VERSION}")), "{said}");
    }
}

#[test]
fn what_lies_between_records_is_zero() {
    let refusal = |bytes: &[u8], at: usize| {
        let mut hostile = bytes.to_vec();
        hostile[at] = 1;
        seal(&mut hostile);
        View::new_checked(&hostile).err().map(|e| e.summary())
    };
    let (mut gaps, mut halfwords) = (0, 0);
    for (name, bytes) in files() {
        for at in word(&bytes, 17) + word(&bytes, 18)..word(&bytes, 20) {
            assert_eq!(refusal(&bytes, at as usize), Some("a byte between two sections is not zero"), "{name}");
            gaps += 1;
        }
        let mut end = word(&bytes, 10) as usize;
        for record in View::new_checked(&bytes).unwrap().ops() {
            let count = record.n_ins() + record.n_outs();
            assert_eq!(record.operand(count), None, "{name}");
            let operands = end + 4;
            end = operands + 4 * count.div_ceil(2) + 4 * record.kind.words();
            for at in operands + 2 * count..operands + 4 * count.div_ceil(2) {
                let reason = "the halfword after an odd number of operands is not zero";
                assert_eq!(refusal(&bytes, at), Some(reason), "{name}");
                halfwords += 1;
            }
        }
        assert_eq!(end, word(&bytes, 17) as usize, "{name}");
    }
    assert!(gaps > 0 && halfwords > 0);
}

#[test]
fn header_fields_may_be_swapped() {
    for (name, bytes) in files() {
        let mut tally = Tally::default();
        for i in 0..32 {
            for j in 0..i {
                let _case = Case(format!("{name}: words {i} and {j} of the header"));
                let mut swapped = bytes.clone();
                put(&mut swapped, i, word(&bytes, j));
                put(&mut swapped, j, word(&bytes, i));
                seal(&mut swapped);
                survive(&swapped, &[0], &mut tally);
            }
        }
        assert!(tally.rejected > 300, "{name}: {tally:?}");
    }
}

#[test]
fn anything_may_be_wrong_at_once() {
    let mut random = Random::new(2);
    for (name, bytes) in files() {
        let mut tally = Tally::default();
        let records = word(&bytes, 20) as usize / 4;
        for _ in 0..20_000 {
            let mut hostile = bytes.clone();
            let mut case = Case(format!("{name}:"));
            for _ in 0..random.size(4) {
                // A word of the records, or of the whole file.
                let words = if random.once_in(4) { bytes.len() / 4 } else { records };
                let at = random.size(words) - 1;
                let value = hostile_word(&mut random, &hostile, at);
                write!(case.0, " word {at} = {value:#x}").unwrap();
                put(&mut hostile, at, value);
            }
            seal(&mut hostile);
            survive(&hostile, &filler(&mut random), &mut tally);
        }
        assert!(tally.rejected > 0 && tally.run > 0, "{name}: {tally:?}");
    }
}

/// What to write over word `at`.
fn hostile_word(random: &mut Random, bytes: &[u8], at: usize) -> u32 {
    let old = word(bytes, at);
    match random.size(8) {
        1 => old.wrapping_add(1),
        2 => old.wrapping_sub(1),
        3 => old ^ (1 << random.within(0, 31)),
        4 => old.swap_bytes(),
        5 => old.rotate_left(16),
        6 => word(bytes, random.size(bytes.len() / 4) - 1),
        7 => random.one_of(&EXTREMES),
        _ => random.bits() as u32,
    }
}

const EXTREMES: [u32; 16] = [
    0,
    1,
    2,
    3,
    16,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_fffe,
    u32::MAX,
];

// Ops by themselves.

/// A word for a field of a shape: mostly what such a field may be, now and then anything.
fn field(random: &mut Random, kind: Kind, name: &str) -> u32 {
    let is_integer = kind >= Kind::InputU8;
    let signed = |value: i64| value as u32;
    if random.once_in(30) {
        return random.one_of(&EXTREMES);
    }
    match name {
        "shift" | "out_shift" => signed(random.within(14, 63)),
        "multiplier" | "out_multiplier" => random.within(1 << 30, (1 << 31) - 1) as u32,
        "zero" | "zero_in" => signed(random.within(-129, 128)),
        "lo" => signed(random.within(-129, 0)),
        "hi" => signed(random.within(0, 128)),
        "ma" | "mb" => signed(random.within(-40_000, 40_000)),
        "offset" => signed(random.within(-(1 << 31), (1 << 31) - 1)),
        "w_shift" => 0,
        "ridge" | "eps" if is_integer => random.within(0, 1 << 23) as u32,
        "eps" | "ridge" | "scale" | "factor" | "smoothing" | "rate" | "momentum" | "decay" | "max_norm" => {
            random.one_of(&[0.0, 1e-5, 0.01, 0.5, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX]).to_bits()
        }
        "pad_h" | "pad_w" | "index" | "skip" => random.within(0, 3) as u32,
        "share" | "heads" | "iterations" => random.within(0, 3) as u32,
        _ if random.once_in(20) => random.within(0, 600) as u32,
        _ => random.within(0, 9) as u32,
    }
}

/// A value of an operand that the check requires to be constant: input `i` of a requantising op.
fn requantisation(random: &mut Random, op: &Op, i: usize) -> Option<i64> {
    let is_input = matches!(op, Op::InputU8(_) | Op::InputI16(_));
    let accumulator = op.accumulator();
    if i == 1 && accumulator.is_some_and(|a| a.weights == Width::Int16) {
        return Some(random.within(-(1 << 15), (1 << 15) - 1));
    }
    match (is_input, accumulator.is_some(), i) {
        (true, _, 1) | (_, true, 3) => Some(random.within(0, (1 << 31) - 1)),
        (true, _, 3) | (_, true, 4) => Some(random.within(if is_input { 28 } else { 31 }, 62)),
        (true, _, 2) | (_, true, 2) => Some(random.within(-(1 << 28), 1 << 28)),
        _ => None,
    }
}

/// The file of a Program that is one op of a hostile shape; `None` where its signature refuses the
/// shape or its operands would be too large.
fn one_op(random: &mut Random, kind: Kind) -> Option<Vec<u8>> {
    let words: Vec<u32> = kind.fields().iter().map(|name| field(random, kind, name)).collect();
    let op = Op::decode(kind, &words);
    let signature = op.signature();
    let (n_ins, n_outs) = (signature.n_ins(), signature.n_outs());
    let lens = (0..n_ins).map(|i| signature.input(i).len).chain((0..n_outs).map(|i| signature.output(i).len));
    let len = lens.fold(0u64, u64::saturating_add);
    if signature.reason().is_some() || len > 1 << 16 || op.macs() > MOST_MACS {
        return None;
    }
    let mut program = Program::new();
    let operand = |program: &mut Program, random: &mut Random, i: usize, is_out: bool| {
        let expected = if is_out { signature.output(i) } else { signature.input(i) };
        if expected.optional && random.once_in(2) {
            return None;
        }
        let shape = [expected.len as usize];
        let constants: Option<Vec<i64>> =
            (0..expected.len).map(|_| if is_out { None } else { requantisation(random, &op, i) }).collect();
        let id = match constants {
            Some(values) if !values.is_empty() => {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(expected.dtype.size()));
                program.constant("constant", expected.dtype, &shape, bytes.collect())
            }
            _ => program.add("operand", expected.dtype, &shape, Role::Activation),
        };
        Some(id)
    };
    let ins: Vec<Option<TensorId>> = (0..n_ins).map(|i| operand(&mut program, random, i, false)).collect();
    let outs: Vec<Option<TensorId>> = (0..n_outs).map(|i| operand(&mut program, random, i, true)).collect();
    program.inputs = ins.iter().flatten().copied().filter(|id| program.tensor(*id).space() == Space::Arena).collect();
    program.outputs = outs.iter().flatten().copied().collect();
    program.push(op, &ins, &outs);
    Some(bytes_of(&program))
}

#[test]
fn every_op_survives_any_shape_that_is_accepted() {
    let mut random = Random::new(3);
    let mut runs = BTreeMap::new();
    for kind in Kind::ALL {
        let mut tally = Tally::default();
        for _ in 0..800 {
            let seed = random.bits();
            let mut random = Random::new(seed);
            let _case = Case(format!("{}, seed {seed}", kind.name()));
            if let Some(bytes) = one_op(&mut random, *kind) {
                survive(&bytes, &filler(&mut random), &mut tally);
            }
        }
        runs.insert(kind.name(), tally.run);
    }
    for (name, runs) in runs {
        assert!(runs >= 10, "{name} ran {runs} times");
    }
}

/// A raw input whose requantised value leaves 32 bits would come out at the wrong end of int8.
#[test]
fn no_raw_input_overflows_its_requantisation() {
    let refusal = |op: Op, offset: i32, multiplier: i32, shift: i8| {
        let mut program = Program::new();
        let x = program.add("x", op.signature().input(0).dtype, &[1], Role::Activation);
        let constants = [
            program.constant("multiplier", DType::I32, &[1], multiplier.to_le_bytes().into()),
            program.constant("offset", DType::I32, &[1], offset.to_le_bytes().into()),
            program.constant("shift", DType::I8, &[1], vec![shift as u8]),
        ];
        let [multiplier, offset, shift] = constants.map(Some);
        program.inputs.push(x);
        let y = program.apply("y", op, &[Some(x), multiplier, offset, shift], &[1]);
        program.outputs.push(y);
        View::new_checked(&bytes_of(&program)).err().map(|e| e.summary())
    };
    let (pixel, sample) = (InputU8 { rows: 1, c: 1, zero: 0 }.into(), InputI16 { rows: 1, c: 1, zero: 0 }.into());
    let overflow = Some("a requantised value can overflow 32 bits");
    for (op, offset, multiplier, shift, expected) in [
        // 255 * 2^12 * 2^30 / 2^18 = 255 * 2^24 is above 2^31.
        (pixel, 0, 1 << 30, 18, overflow),
        (pixel, 0, 1 << 30, 19, None),
        (pixel, i32::MIN, 1 << 30, 30, overflow),
        (pixel, i32::MIN, 1 << 30, 31, None),
        (pixel, i32::MAX, i32::MAX, 31, overflow),
        (pixel, i32::MAX, 0, 16, None),
        (sample, 0, 1 << 30, 26, overflow),
        (sample, 0, 1 << 30, 27, None),
    ] {
        assert_eq!(refusal(op, offset, multiplier, shift), expected, "{op:?} {offset} {multiplier} {shift}");
    }
}

/// The file's weights of int16 are what is proven, up to the last unit.
#[test]
fn no_sum_of_int16_weights_overflows() {
    const K: usize = 512;
    let file = |weights: &[i16], bias: i32, constant: bool| {
        let mut program = Program::new();
        let x = program.add("x", DType::I8, &[K], Role::Activation);
        program.inputs.push(x);
        // The second of two channels.
        let bytes = vec![0; 2 * K].into_iter().chain(weights.iter().flat_map(|w| w.to_le_bytes())).collect();
        let w = if constant {
            program.constant("w", DType::I16, &[2, K], bytes)
        } else {
            let w = program.add("w", DType::I16, &[2, K], Role::Activation);
            program.inputs.push(w);
            w
        };
        let words = |values: [i32; 2]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bias = program.constant("bias", DType::I32, &[2], words([0, bias]));
        let multiplier = program.constant("multiplier", DType::I32, &[2], words([1 << 30; 2]));
        let shift = program.constant("shift", DType::I8, &[2], vec![31; 2]);
        let op = LinearI16W16 { rows: 1, k: K, n: 2 };
        let y = program.apply("y", op, &[x, w, bias, multiplier, shift].map(Some), &[2]);
        program.outputs.push(y);
        bytes_of(&program)
    };
    let refusal = |bytes: &[u8]| View::new_checked(bytes).err().map(|e| e.summary());
    let (overflow, most) = (Some("an accumulator can overflow 32 bits"), [i16::MIN; K]);
    // 512 * 128 * 2^15 is 2^31.
    assert_eq!(refusal(&file(&most, 0, true)), overflow);
    for least in [-32767, 32767] {
        let mut almost = most;
        almost[K - 1] = least;
        assert_eq!(refusal(&file(&almost, -128, true)), overflow);
        let accepted = file(&almost, -127, true);
        assert_eq!(refusal(&accepted), None);
        let mut tally = Tally::default();
        [0x80, 0x7f, 0].iter().for_each(|&x| survive(&accepted, &[x], &mut tally));
        assert_eq!(tally.run, 3);
    }
    assert_eq!(refusal(&file(&most, 0, false)), Some("weights of int16 are not constants"));
}

#[test]
fn any_words_have_a_signature_and_a_cost() {
    let mut random = Random::new(4);
    for kind in Kind::ALL {
        for _ in 0..3000 {
            let words: Vec<u32> = kind
                .fields()
                .iter()
                .map(|name| if random.once_in(2) { random.one_of(&EXTREMES) } else { field(&mut random, *kind, name) })
                .collect();
            let _case = Case(format!("{} {words:?}", kind.name()));
            let op = Op::decode(*kind, &words);
            let _ = (op.signature(), op.macs(), op.accumulator());
        }
    }
}
