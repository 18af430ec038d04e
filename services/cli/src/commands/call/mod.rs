//! `weir call`: any method of the API with JSON, from the description that is compiled in; `list` and `describe`
//! show what there is.

mod codec;
mod describe;

use std::time::Duration;

use clap::Args;
use prost_reflect::{DeserializeOptions, DynamicMessage, MethodDescriptor, ServiceDescriptor};
use serde_json::Value;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::{self, StreamExt as _};

use self::codec::DynamicCodec;
use crate::error::{Error, Result};
use crate::output::{Format, View};
use crate::reflect;
use crate::session::Session;
use weir_runtime::blocking;
use weir_types::nearest;

/// How long a server's word about the time that is over may take.
const MOMENT: Duration = Duration::from_millis(50);

/// Call any method with JSON
#[derive(Debug, Args)]
#[command(after_help = "\
  weir call list [SERVICE]      services and methods
  weir call describe NAME       a service, method, message or enum, with its comments
  weir call SERVICE/METHOD      the package may be left out; streams take several JSON objects

Fields have the API's names, bytes are base64. Answers show every field, and name values of enums
in full, as requests do (everywhere else -o json leaves out the name of the enum).

Examples:
  $ weir call list
  $ weir call MetadataService/GetServerInfo
  $ weir call ProducerService/Produce '{\"topic\": \"greetings\", \"records\": [{\"valueText\": \"hello\"}]}'")]
pub(crate) struct Call {
    /// SERVICE/METHOD, list, or describe
    #[arg(value_name = "METHOD")]
    what: String,
    /// JSON, @FILE, or - for stdin; a name after list or describe
    #[arg(value_name = "JSON")]
    data: Option<String>,
}

impl Call {
    /// Why it has no `--dry-run`, where the method changes something.
    pub(crate) fn refuses_dry_run(&self) -> Option<String> {
        let method = find(&self.what).ok().filter(|method| !changes_nothing(method.name()))?;
        let input = method.input();
        Some(match input.get_field_by_name("validate_only") {
            Some(_) => {
                "weir call sends the request as it is, so it has no --dry-run; put \"validateOnly\": true \
                        into the request instead"
                    .to_owned()
            }
            None => format!(
                "weir call sends the request as it is, so it has no --dry-run, and {} has no validateOnly",
                input.name()
            ),
        })
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.what.as_str() {
            "list" => session.print(&list(self.data.as_deref())?),
            "describe" => match self.data {
                Some(name) => session.print_bytes(describe::describe(&name)?.as_bytes()),
                None => session.print(&list(None)?),
            },
            method => {
                let method = find(method)?;
                let messages = messages(&method, &read(session, self.data.as_deref()).await?)?;
                call(session, &method, messages).await
            }
        }
    }
}

/// Services, or the methods of one.
fn list(service: Option<&str>) -> Result<View> {
    let mut view = View::default();
    let mut add = |name: String, object: Value| {
        view.line(name.clone());
        view.names.push(name);
        view.objects.push(object);
    };
    match service {
        None => {
            for service in services() {
                let methods: Vec<String> = service.methods().map(|m| m.name().to_owned()).collect();
                let name = service.full_name().to_owned();
                add(name.clone(), serde_json::json!({ "service": name, "methods": methods }));
            }
        }
        Some(name) => {
            let service = service_named(name)?;
            for method in service.methods() {
                let name = format!("{}/{}", service.full_name(), method.name());
                let (input, output) = (method.input(), method.output());
                add(
                    name.clone(),
                    serde_json::json!({
                        "method": name,
                        "input": input.full_name(), "inputStream": method.is_client_streaming(),
                        "output": output.full_name(), "outputStream": method.is_server_streaming(),
                    }),
                );
            }
        }
    }
    Ok(view)
}

/// The public services.
fn services() -> impl Iterator<Item = ServiceDescriptor> {
    reflect::pool().services().filter(|service| !service.full_name().contains(".internal."))
}

fn service_named(name: &str) -> Result<ServiceDescriptor> {
    let found = services().find(|service| service.full_name() == name || service.name() == name);
    found.ok_or_else(|| {
        let names: Vec<String> = services().map(|service| service.name().to_owned()).collect();
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", names.join(", ")),
        };
        Error::NotFound(format!("there is no service \"{name}\"; {hint} (weir call list)"))
    })
}

fn find(name: &str) -> Result<MethodDescriptor> {
    let Some((service, method)) = name.trim_start_matches('/').split_once('/') else {
        return Err(Error::Usage(format!(
            "\"{name}\" is no method: write SERVICE/METHOD, such as TopicService/ListTopics (weir call list)"
        )));
    };
    let service = service_named(service)?;
    service.methods().find(|m| m.name() == method).ok_or_else(|| {
        let names: Vec<String> = service.methods().map(|m| m.name().to_owned()).collect();
        let hint = match nearest(method, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {}/{near}?", service.name()),
            None => format!("there are {}", names.join(", ")),
        };
        Error::NotFound(format!("{} has no method \"{method}\"; {hint}", service.name()))
    })
}

/// The JSON: given, in a file, from stdin, or nothing.
async fn read(session: &Session, data: Option<&str>) -> Result<String> {
    match data {
        None => Ok("{}".to_owned()),
        Some("-") => {
            let failed = |source| Error::Io { what: "cannot read stdin".to_owned(), source };
            // By a thread that may wait: Ctrl-C is heard meanwhile.
            blocking(session.os(), || std::io::read_to_string(std::io::stdin())).await.map_err(failed)
        }
        Some(text) => match text.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| Error::Io { what: format!("cannot read {path}"), source }),
            None => Ok(text.to_owned()),
        },
    }
}

/// The messages in a text: one JSON object after another.
fn messages(method: &MethodDescriptor, text: &str) -> Result<Vec<DynamicMessage>> {
    let input = method.input();
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut messages = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| Error::Usage(format!("that is not JSON: {error}")))?;
        let message = DynamicMessage::deserialize_with_options(input.clone(), value, &options);
        messages.push(message.map_err(|error| {
            let name = input.name();
            Error::Usage(format!("that is no {name}: {error} (weir call describe {name})"))
        })?);
    }
    match (messages.len(), method.is_client_streaming()) {
        (0 | 1, true) | (1, false) => {}
        (_, true) => {}
        (0, false) => messages.push(DynamicMessage::new(input)),
        (n, false) => return Err(Error::Usage(format!("{} takes one message, not {n}", method.name()))),
    }
    Ok(messages)
}

async fn call(session: &Session, method: &MethodDescriptor, messages: Vec<DynamicMessage>) -> Result<()> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::try_from(path).map_err(|error| Error::Failed(error.to_string()))?;
    let limit = usize::try_from(crate::connect::MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
    let mut client = Grpc::new(session.channel().await?).max_decoding_message_size(limit);
    let server = session.address()?;
    let failed = |error: weir_client::Error| match changes_nothing(method.name()) {
        true => Error::of(&error.of_a_read(), &server),
        false => Error::of(&error, &server),
    };
    let (address, limit) = (server.to_string(), session.timeout());
    let judged =
        |status: Status| failed(weir_client::Error::of_call(method.name(), &address, limit, &status));
    client.ready().await.map_err(|error| judged(Status::from_error(Box::new(error))))?;
    let mut request = tonic::Request::new(tokio_stream::iter(messages));
    // A stream of answers goes on until Ctrl-C; --timeout ends it where it is given.
    let ends = !method.is_server_streaming() || session.timeout_given();
    if ends {
        request.set_timeout(limit);
    }
    let called = async {
        let answer = client.streaming(request, path, DynamicCodec::new(method.output())).await;
        let mut answers = answer.map_err(&judged)?.into_inner();
        while let Some(answer) = answers.next().await {
            let message = answer.map_err(&judged)?;
            let value =
                reflect::dynamic_json(&message, false).map_err(|error| Error::Failed(error.to_string()))?;
            print(session, value)?;
        }
        Ok(())
    };
    match ends {
        // The server keeps the time, too, and has a moment to say so.
        true => tokio::time::timeout(limit + MOMENT, called)
            .await
            .unwrap_or_else(|_| Err(failed(weir_client::Error::unanswered(method.name(), &address, limit)))),
        false => called.await,
    }
}

fn print(session: &Session, value: Value) -> Result<()> {
    match session.format() {
        Format::Table | Format::Wide => {
            let text =
                serde_json::to_string_pretty(&value).map_err(|error| Error::Failed(error.to_string()))?;
            session.print_bytes(format!("{text}\n").as_bytes())
        }
        _ => session.print(&View { objects: vec![value], ..View::default() }),
    }
}

/// Methods whose lost answer leaves no doubt. One that asks what became of an append may seal it, too.
fn changes_nothing(method: &str) -> bool {
    method != "GetAppendOutcome"
        && ["Get", "List", "Describe", "Watch", "Fetch", "Consume"]
            .iter()
            .any(|verb| method.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_with_and_without_the_package() {
        for name in
            ["TopicService/GetTopic", "weir.v1.TopicService/GetTopic", "/weir.v1.TopicService/GetTopic"]
        {
            assert_eq!(find(name).unwrap().full_name(), "weir.v1.TopicService.GetTopic");
        }
        for (bad, hint) in [
            ("GetTopic", "SERVICE/METHOD"),
            ("TopcService/GetTopic", "did you mean TopicService?"),
            ("TopicService/GetTopics", "did you mean TopicService/GetTopic?"),
        ] {
            let error = find(bad).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn what_can_change_something_is_not_taken_for_a_read_by_its_name() {
        for (method, nothing) in
            [("GetTopic", true), ("ListTopics", true), ("CreateTopic", false), ("GetAppendOutcome", false)]
        {
            assert_eq!(changes_nothing(method), nothing, "{method}");
        }
    }

    #[test]
    fn json_becomes_messages() {
        let get = find("TopicService/GetTopic").unwrap();
        assert_eq!(messages(&get, r#"{"name": "a"}"#).unwrap().len(), 1);
        assert_eq!(messages(&get, "").unwrap().len(), 1);
        let stream = find("ProducerService/ProduceStream").unwrap();
        assert_eq!(messages(&stream, "{\"hello\": {}}\n{\"append\": {}}").unwrap().len(), 2);
        for (bad, hint) in [
            ("{", "not JSON"),
            ("{\"nam\": 1}", "weir call describe GetTopicRequest"),
            ("{}{}", "one message"),
        ] {
            let error = messages(&get, bad).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
