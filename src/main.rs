//! The program. Owns nothing but the way from arguments to an exit code.

fn main() {
    let sources = photon::settings::Sources {
        config: None,
        flags: Vec::new(),
        environment: photon::settings::Environment::of_process(),
        other_variables: &[],
        folder: std::env::current_dir().unwrap_or_default(),
    };
    let code = match photon::settings::Settings::load(&sources) {
        Ok(settings) => {
            let _ = photon::telemetry::start(&settings.log.level, settings.log.format);
            actix_web::rt::System::new().block_on(async move {
                match photon::app::Server::start(&settings).await {
                    Ok(server) => server.failed().await,
                    Err(fault) => {
                        eprintln!("{fault}");
                        fault.exit_code()
                    }
                }
            })
        }
        Err(fault) => {
            eprintln!("{fault}");
            64
        }
    };
    std::process::exit(code);
}
