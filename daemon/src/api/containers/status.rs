//! What `docker ps` shows of a container's state.

use cleat_proto::journal::Health;

use crate::{
    api::time::human_duration,
    container::{Container, State},
};

/// Returns the text of `Status`: `Up 5 minutes`, `Exited (0) 2 hours ago` … Source: Engine API v1.51, ContainerList.
pub fn text(container: &Container, now_nanos: i64) -> String {
    let run = &container.run;
    let since = |nanos: i64| human_duration(now_nanos.saturating_sub(nanos).max(0));
    match container.state {
        State::Running { .. } => {
            let health = run.health.as_ref().map(|health| health.status);
            format!("Up {}{}", since(run.started_at_nanos), in_parentheses(health))
        }
        State::Paused { .. } => format!("Up {} (Paused)", since(run.started_at_nanos)),
        State::Restarting => {
            format!("Restarting ({}) {} ago", run.exit_code, since(run.finished_at_nanos))
        }
        State::Removing => "Removal In Progress".to_owned(),
        State::Dead => "Dead".to_owned(),
        State::Created => "Created".to_owned(),
        State::Exited if run.finished_at_nanos == 0 => String::new(),
        State::Exited if run.started_at_nanos == 0 => "Created".to_owned(),
        State::Exited => format!("Exited ({}) {} ago", run.exit_code, since(run.finished_at_nanos)),
    }
}

fn in_parentheses(health: Option<Health>) -> &'static str {
    match health {
        None => "",
        Some(Health::Starting) => " (health: starting)",
        Some(Health::Healthy) => " (healthy)",
        Some(Health::Unhealthy) => " (unhealthy)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::containers::filter::tests::container;

    const SECOND: i64 = 1_000_000_000;

    #[track_caller]
    fn check(state: State, expected: &str) {
        let mut container = container("web");
        container.state = state;
        container.run.started_at_nanos = 100 * SECOND;
        container.run.finished_at_nanos = 160 * SECOND;
        container.run.exit_code = 3;
        assert_eq!(text(&container, 400 * SECOND), expected);
    }

    #[test]
    fn every_state_has_its_words() {
        check(State::Running { pid: 1 }, "Up 5 minutes");
        check(State::Paused { pid: 1 }, "Up 5 minutes (Paused)");
        check(State::Restarting, "Restarting (3) 4 minutes ago");
        check(State::Exited, "Exited (3) 4 minutes ago");
        check(State::Created, "Created");
        check(State::Removing, "Removal In Progress");
        check(State::Dead, "Dead");
    }
}
