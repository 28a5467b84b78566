//! The program `photon`. It owns nothing: the command line does.

fn main() -> std::process::ExitCode {
    photon::cli::main()
}
