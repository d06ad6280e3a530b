//! The program `cleat-runc`; see the library.

fn main() -> std::process::ExitCode {
    cleat_runc::main()
}
