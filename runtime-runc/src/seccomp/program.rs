//! Intervals and rules become instructions of the classic BPF machine.
//!
//! The program is built from its end to its start: every jump goes forward, so its target is there already when the jump is
//! made. A conditional jump reaches 255 instructions; for more it goes by way of an unconditional one.
//! Source: the kernel's networking/filter.rst and `<linux/bpf_common.h>`; `seccomp(2)` for `struct seccomp_data`.

use oci_spec::runtime::LinuxSeccompOperator as Operator;

use super::table::{Condition, KILL_THREAD, Outcome, Rule, Section};

/// Offsets in `struct seccomp_data` { int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]; }.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub value: u32,
}

impl Instruction {
    /// Returns it as the kernel reads it.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        (bytes[2], bytes[3]) = (self.if_true, self.if_false);
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

/// Instruction codes: class, size and mode, or operation and source.
pub mod code {
    pub const LOAD_WORD: u16 = 0x20;
    pub const AND: u16 = 0x54;
    pub const JUMP: u16 = 0x05;
    pub const JUMP_EQUAL: u16 = 0x15;
    pub const JUMP_GREATER: u16 = 0x25;
    pub const JUMP_GREATER_EQUAL: u16 = 0x35;
    pub const RETURN: u16 = 0x06;
}

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug)]
struct Label(usize);

/// Assembles the whole program: which architecture, which number, which arguments.
pub fn assemble(sections: &[Section]) -> Vec<Instruction> {
    let mut backwards = Backwards::default();
    let mut next = backwards.returns(KILL_THREAD);
    for section in sections.iter().rev() {
        let search = backwards.search(&section.intervals);
        backwards.fall_into(search);
        backwards.load(NUMBER);
        let numbers = backwards.here();
        next = backwards.branch(code::JUMP_EQUAL, section.audit_arch, numbers, next);
    }
    backwards.load(ARCH);
    backwards.finish()
}

#[derive(Default)]
struct Backwards {
    instructions: Vec<Instruction>,
    returns: Vec<(u32, Label)>,
}

impl Backwards {
    fn finish(mut self) -> Vec<Instruction> {
        self.instructions.reverse();
        self.instructions
    }

    /// The place of the instruction added last, which is the first to be executed.
    fn here(&self) -> Label {
        Label(self.instructions.len())
    }

    fn push(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) -> Label {
        self.instructions.push(Instruction { code, if_true, if_false, value });
        self.here()
    }

    fn load(&mut self, offset: u32) {
        self.push(code::LOAD_WORD, 0, 0, offset);
    }

    /// How many instructions lie between the next one to be added and `label`.
    fn distance(&self, label: Label) -> usize {
        self.instructions.len() - label.0
    }

    /// Returns where `value` is returned: an earlier place if it is near, a new one otherwise.
    fn returns(&mut self, value: u32) -> Label {
        let known =
            self.returns.iter().rev().find(|(known, _)| *known == value).map(|(_, label)| *label);
        match known {
            // Some room for what comes between here and the jump.
            Some(label) if self.distance(label) < 200 => label,
            _ => {
                let label = self.push(code::RETURN, 0, 0, value);
                self.returns.push((value, label));
                label
            }
        }
    }

    /// Makes sure that `label` can be reached from a conditional jump that is at most a few instructions away.
    fn near(&mut self, label: Label) -> Label {
        match self.distance(label) {
            0..=250 => label,
            far => self.push(code::JUMP, 0, 0, far as u32),
        }
    }

    /// Makes what is added next go on at `label`.
    fn fall_into(&mut self, label: Label) {
        match self.distance(label) {
            0 => {}
            distance => drop(self.push(code::JUMP, 0, 0, distance as u32)),
        }
    }

    fn branch(&mut self, code: u16, value: u32, if_true: Label, if_false: Label) -> Label {
        let if_true = self.near(if_true);
        let if_false = self.near(if_false);
        let (if_true, if_false) = (self.distance(if_true) as u8, self.distance(if_false) as u8);
        self.push(code, if_true, if_false, value)
    }

    /// Finds the interval of the number in the accumulator.
    fn search(&mut self, intervals: &[(u32, Outcome)]) -> Label {
        match intervals {
            [] => self.returns(KILL_THREAD),
            [(_, outcome)] => self.outcome(outcome),
            _ => {
                let (low, high) = intervals.split_at(intervals.len() / 2);
                let first_of_high = high[0].0;
                let high = self.search(high);
                let low = self.search(low);
                self.branch(code::JUMP_GREATER_EQUAL, first_of_high, high, low)
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome) -> Label {
        match outcome {
            Outcome::Return(value) => self.returns(*value),
            Outcome::Rules { rules, otherwise } => {
                let mut next = self.returns(*otherwise);
                for rule in rules.iter().rev() {
                    next = self.rule(rule, next);
                }
                next
            }
        }
    }

    fn rule(&mut self, rule: &Rule, otherwise: Label) -> Label {
        let mut next = self.returns(rule.action);
        for condition in rule.conditions.iter().rev() {
            next = self.condition(condition, next, otherwise);
        }
        next
    }

    /// The machine has 32 bits: the high half first, the low one where that leaves it open.
    fn condition(&mut self, condition: &Condition, holds: Label, fails: Label) -> Label {
        match condition.operator {
            Operator::ScmpCmpEq => self.equal(condition, None, condition.value, holds, fails),
            Operator::ScmpCmpNe => self.equal(condition, None, condition.value, fails, holds),
            Operator::ScmpCmpMaskedEq => {
                self.equal(condition, Some(condition.value), condition.second, holds, fails)
            }
            Operator::ScmpCmpGt => self.greater(condition, code::JUMP_GREATER, holds, fails),
            Operator::ScmpCmpGe => self.greater(condition, code::JUMP_GREATER_EQUAL, holds, fails),
            Operator::ScmpCmpLt => self.greater(condition, code::JUMP_GREATER_EQUAL, fails, holds),
            Operator::ScmpCmpLe => self.greater(condition, code::JUMP_GREATER, fails, holds),
        }
    }

    fn equal(
        &mut self,
        at: &Condition,
        mask: Option<u64>,
        value: u64,
        equal: Label,
        other: Label,
    ) -> Label {
        self.branch(code::JUMP_EQUAL, low(value), equal, other);
        let low_half = self.load_half(at.index, low, mask);
        self.branch(code::JUMP_EQUAL, high(value), low_half, other);
        self.load_half(at.index, high, mask)
    }

    fn greater(&mut self, at: &Condition, low_code: u16, yes: Label, no: Label) -> Label {
        self.branch(low_code, low(at.value), yes, no);
        let low_half = self.load_half(at.index, low, None);
        let not_greater = self.branch(code::JUMP_EQUAL, high(at.value), low_half, no);
        self.branch(code::JUMP_GREATER, high(at.value), yes, not_greater);
        self.load_half(at.index, high, None)
    }

    /// Loads the half of an argument that `half` takes of a number.
    fn load_half(&mut self, index: u32, half: fn(u64) -> u32, mask: Option<u64>) -> Label {
        if let Some(mask) = mask {
            self.push(code::AND, 0, 0, half(mask));
        }
        // Which half of the eight bytes that is depends on the byte order: probe with a number that tells them apart.
        let is_second = half(u64::from_ne_bytes([0, 0, 0, 0, 1, 1, 1, 1])) != 0;
        self.load(ARGUMENTS + 8 * index + if is_second { 4 } else { 0 });
        self.here()
    }
}

fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
