//! TTIN and TTOU: more and fewer worker processes.

use super::{Master, Phase};

impl Master {
    /// TTIN and TTOU: one process more or fewer of each application.
    pub(super) async fn resize(&mut self, by: i32) {
        if self.phase != Phase::Running || !self.serving {
            return;
        }
        let names: Vec<String> = self.apps.keys().cloned().collect();
        for name in names {
            let Some(app) = self.apps.get_mut(&name).filter(|app| app.generation != u64::MAX) else { continue };
            let processes = app.settings.processes.saturating_add_signed(by).max(1);
            if processes == app.settings.processes {
                continue;
            }
            app.settings.processes = processes;
            let generation = app.generation;
            let youngest = app.workers.iter().filter(|(_, worker)| !worker.leaving).map(|(&serial, _)| serial).max();
            self.errors.info(format_args!("{name}: {processes} processes from now on"));
            match youngest {
                Some(serial) if by < 0 => self.retire(&name, serial).await,
                _ => self.fork_worker(&name, generation, None).await,
            }
        }
    }
}
