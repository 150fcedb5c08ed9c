//! Rules on devices as cgroup v2 wants them: a small program, which the kernel asks each time a process of
//! the cgroup opens a device or makes a node of one. Here rules become instructions; nothing is loaded.

use std::io;

use super::Device;

/// An instruction, in the layout of `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub code: u8,
    /// The destination in the lower half, the source in the upper.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// Opcodes of `linux/bpf.h`, as far as they are needed.
pub(super) mod code {
    /// A 32-bit word of memory into a register.
    pub const LOAD: u8 = 0x61;
    pub const AND: u8 = 0x54;
    pub const SHIFT_RIGHT: u8 = 0x74;
    pub const SET: u8 = 0xb4;
    pub const COPY: u8 = 0xbc;
    pub const JUMP_IF: u8 = 0x15;
    pub const JUMP_UNLESS: u8 = 0x55;
    pub const JUMP_UNLESS_SAME: u8 = 0x5d;
    pub const END: u8 = 0x95;
}

/// Registers: the answer, what is asked about (and later scratch), and its parts.
const ANSWER: u8 = 0;
const ASKED: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_*`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// The program for the rules, each going before those ahead of it. None where they forbid nothing.
///
/// # Errors
/// `InvalidInput` if a rule names what no device can have.
pub(super) fn of(rules: &[Device]) -> io::Result<Option<Vec<Instruction>>> {
    // What is ahead of a rule on all devices counts for nothing.
    let begin = rules.iter().rposition(|rule| rule.kind == 'a').unwrap_or(0);
    let rules = &rules[begin..];
    if rules.iter().all(|rule| rule.allow) {
        return Ok(None);
    }
    let mut program = split().to_vec();
    for rule in rules.iter().rev() {
        program.extend(decide(rule)?);
    }
    // The verifier wants no instruction that is never come to.
    if rules.first().is_none_or(|rule| rule.kind != 'a') {
        program.extend(answer(true));
    }
    Ok(Some(program))
}

/// Takes `struct bpf_cgroup_dev_ctx` to pieces: kind and access share a word.
fn split() -> [Instruction; 6] {
    [
        new(code::LOAD, KIND, ASKED, 0, 0),
        new(code::COPY, ACCESS, KIND, 0, 0),
        new(code::AND, KIND, 0, 0, 0xffff),
        new(code::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        new(code::LOAD, MAJOR, ASKED, 4, 0),
        new(code::LOAD, MINOR, ASKED, 8, 0),
    ]
}

/// Answers if the rule is about what is asked, and else goes on after it.
fn decide(rule: &Device) -> io::Result<Vec<Instruction>> {
    let mut tests = Vec::new();
    if rule.kind != 'a' {
        let kind = if rule.kind == 'b' { BLOCK } else { CHARACTER };
        tests.push(new(code::JUMP_UNLESS, KIND, 0, 0, kind));
        tests.extend(is_about(rule)?);
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            let Some(number) = number else { continue };
            let number = i32::try_from(number).map_err(|_| invalid(rule))?;
            tests.push(new(code::JUMP_UNLESS, register, 0, 0, number));
        }
    }
    let end = tests.len() + answer(true).len();
    for (at, test) in tests.iter_mut().enumerate().filter(|(_, test)| is_jump(test.code)) {
        test.offset = i16::try_from(end - at - 1).map_err(|_| invalid(rule))?;
    }
    tests.extend(answer(rule.allow));
    Ok(tests)
}

/// A rule that allows is about what it allows wholly, one that denies about what it denies in part.
fn is_about(rule: &Device) -> io::Result<Vec<Instruction>> {
    let bit = |letter| match letter {
        'r' => Ok(READ),
        'w' => Ok(WRITE),
        'm' => Ok(MAKE),
        _ => Err(invalid(rule)),
    };
    let access =
        rule.access.chars().try_fold(0, |all, letter| Ok::<_, io::Error>(all | bit(letter)?))?;
    let test = match rule.allow {
        true => new(code::JUMP_UNLESS_SAME, ASKED, ACCESS, 0, 0),
        false => new(code::JUMP_IF, ASKED, 0, 0, 0),
    };
    Ok(vec![new(code::COPY, ASKED, ACCESS, 0, 0), new(code::AND, ASKED, 0, 0, access), test])
}

fn answer(allow: bool) -> [Instruction; 2] {
    [new(code::SET, ANSWER, 0, 0, allow.into()), new(code::END, 0, 0, 0, 0)]
}

fn is_jump(code: u8) -> bool {
    matches!(code, code::JUMP_IF | code::JUMP_UNLESS | code::JUMP_UNLESS_SAME)
}

fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

fn invalid(rule: &Device) -> io::Error {
    let why = format!("no device is as in the rule \"{rule}\"");
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is asked: kind, major, minor, access.
    type Asked = (i32, u32, u32, i32);

    /// Does what the kernel would do with these instructions, and no others.
    fn run(program: &[Instruction], (kind, major, minor, access): Asked) -> bool {
        let context = [(access << 16 | kind).cast_unsigned(), major, minor];
        let mut registers = [0_u32; 6];
        let mut at = 0;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[at];
            let (to, from) = (usize::from(both & 0xf), usize::from(both >> 4));
            let (value, other) = (registers[to], registers[from]);
            let immediate = immediate.cast_unsigned();
            at += 1;
            let jumps = match code {
                code::JUMP_IF => value == immediate,
                code::JUMP_UNLESS => value != immediate,
                code::JUMP_UNLESS_SAME => value != other,
                code::END => return registers[0] == 1,
                _ => false,
            };
            at += if jumps { usize::try_from(offset).unwrap() } else { 0 };
            registers[to] = match code {
                code::LOAD => context[usize::try_from(offset / 4).unwrap()],
                code::AND => value & immediate,
                code::SHIFT_RIGHT => value >> immediate,
                code::SET => immediate,
                code::COPY => other,
                _ => value,
            };
        }
    }

    /// The rules' meaning, said without a program.
    fn means(rules: &[Device], (kind, major, minor, access): Asked) -> bool {
        let letters = [('m', MAKE), ('r', READ), ('w', WRITE)];
        let fits = |number: Option<i64>, asked: u32| number.is_none_or(|it| it == asked.into());
        let is_about = |rule: &Device| {
            let mut asked = letters.iter().filter(|(_, bit)| access & bit != 0);
            let has = |letter: &(char, i32)| rule.access.contains(letter.0);
            let is_kind = rule.kind == if kind == BLOCK { 'b' } else { 'c' };
            let is_access = if rule.allow { asked.all(has) } else { asked.any(has) };
            let numbers = fits(rule.major, major) && fits(rule.minor, minor);
            rule.kind == 'a' || (is_kind && is_access && numbers)
        };
        rules.iter().rev().find(|rule| is_about(rule)).is_none_or(|rule| rule.allow)
    }

    fn rule() -> impl Strategy<Value = Device> {
        let number = || prop::option::of(0..3_i64);
        let kind = prop::sample::select(vec!['a', 'b', 'c', 'c']);
        let parts = (any::<bool>(), kind, number(), number(), "r?w?m?");
        parts.prop_map(|(allow, kind, major, minor, access)| Device {
            allow,
            kind,
            major,
            minor,
            access,
        })
    }

    proptest! {
        #[test]
        fn the_program_answers_as_the_rules_mean(
            rules in prop::collection::vec(rule(), 0..6),
            asked in (BLOCK..=CHARACTER, 0..3_u32, 0..3_u32, 1..8_i32),
        ) {
            let answer = of(&rules).unwrap().is_none_or(|program| run(&program, asked));
            prop_assert_eq!(answer, means(&rules, asked));
        }

        #[test]
        fn no_rule_panics(kind: char, major: Option<i64>, minor: Option<i64>, access: String) {
            let deny = Device { allow: false, kind: 'a', major: None, minor: None, access: String::new() };
            let _ = of(&[deny, Device { allow: true, kind, major, minor, access }]);
        }
    }

    #[test]
    fn every_instruction_is_come_to() {
        let rule = |allow, kind| Device {
            allow,
            kind,
            major: Some(1),
            minor: Some(3),
            access: "rw".into(),
        };
        let (all, null) = (rule(false, 'a'), rule(true, 'c'));
        let with_base = of(&[null.clone(), all, null.clone()]).unwrap().unwrap();
        let ends = with_base.iter().filter(|it| it.code == code::END).count();
        assert_eq!(
            ends, 2,
            "one for the rule, one for the base; what is ahead of the base is not there"
        );
        assert_eq!(of(&[rule(true, 'a'), null]).unwrap(), None, "that forbids nothing");
    }
}
