//! Settings in the environment: `WEIR_` and the name in capitals.

use crate::given::{Given, Source};
use crate::{Error, all_keys};

/// What variables of ours begin with.
pub(crate) const PREFIX: &str = "WEIR_";

/// Variables that are ours and no settings of a process: the command line reads them.
const OTHERS: &[&str] = &["WEIR_CONFIG", "WEIR_SERVER", "WEIR_CONTEXT", "WEIR_CONTEXTS"];

/// The settings among `variables`. An empty one counts as not set: that is how templates leave things out.
pub(crate) fn settings(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<Given>, Error> {
    let mut settings = Vec::new();
    for (variable, text) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if text.is_empty() || OTHERS.contains(&variable.as_str()) {
            continue;
        }
        let place = Source::Environment(variable.clone());
        match all_keys().find(|key| key.variable() == variable) {
            Some(key) => settings.push(Given { key, text, place }),
            None if is_service_link(name) => {}
            None => {
                let variables: Vec<_> = all_keys().map(|key| key.variable()).collect();
                let nearest = weir_types::nearest(&variable, variables.iter().map(String::as_str));
                let nearest = nearest.map(str::to_owned);
                return Err(Error::Unknown { name: variable, place, nearest });
            }
        }
    }
    Ok(settings)
}

/// Kubernetes puts the addresses of services into the environment of every container beside them: for a service
/// "weir" WEIR_SERVICE_HOST, WEIR_PORT, WEIR_PORT_9347_TCP_ADDR and more. Nobody meant a setting by that.
fn is_service_link(name: &str) -> bool {
    let of_service = |part: &str| name.starts_with(part) || name.contains(&format!("_{part}"));
    of_service("SERVICE_HOST")
        || of_service("SERVICE_PORT")
        || of_service("PORT_")
        || name == "PORT"
        || name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Vec<(String, String)>, Error> {
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Ok(settings(variables)?.into_iter().map(|given| (given.key.name.to_owned(), given.text)).collect())
    }

    #[test]
    fn variables_are_settings_in_capitals() {
        let given =
            read(&[("WEIR_DATA_DIR", "/d"), ("PATH", "/bin"), ("WEIR_RACK", ""), ("WEIR_SERVER", "h:1")]);
        assert_eq!(given.unwrap(), [("data_dir".to_owned(), "/d".to_owned())]);
    }

    #[test]
    fn a_mistyped_variable_is_an_error() {
        let error = read(&[("WEIR_DATADIR", "/d")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "env WEIR_DATADIR: there is no setting \"WEIR_DATADIR\"; did you mean \"WEIR_DATA_DIR\"?"
        );
        assert!(read(&[("WEIR_SUPPORT", "1")]).is_err());
    }

    #[test]
    fn what_kubernetes_adds_is_nobodys_mistake() {
        let links = [
            "WEIR_SERVICE_HOST",
            "WEIR_SERVICE_PORT",
            "WEIR_SERVICE_PORT_GRPC",
            "WEIR_PORT",
            "WEIR_PORT_9347_TCP",
            "WEIR_PORT_9347_TCP_ADDR",
            "WEIR_BROKER_SERVICE_HOST",
            "WEIR_BROKER_PORT_9347_TCP_PROTO",
            "WEIR_BROKER_PORT",
        ];
        let links: Vec<_> = links.iter().map(|link| (*link, "10.0.0.1")).collect();
        assert_eq!(read(&links).unwrap(), []);
    }
}
