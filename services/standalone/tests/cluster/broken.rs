//! A controller that cannot write any more takes its process with it (correctness rule 35).

use std::sync::Arc;

use tokio::time::timeout;
use tonic::transport::Channel;
use weir_config::{Loader, Standalone as Config};
use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, Topic};
use weir_runtime::testing::TestOs;
use weir_runtime::{Executors, ExecutorsConfig};
use weir_standalone::Standalone;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_whose_disk_fails_ends_the_process() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = Arc::new(TestOs::threads(Arc::new(disk.clone())).unwrap());
    let flags = ["--listen", "--http-listen", "--controller-listen"];
    let loader = flags.into_iter().fold(Loader::new(), |loader, flag| loader.flag(flag, "127.0.0.1:0"));
    let config = loader.flag("--data-dir", "/weir").load::<Config>().unwrap().config;
    let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
    let standalone = Standalone::start(os, &executors, &config).await.unwrap();

    let fails = Rule::on([Op::SyncData, Op::SyncAll], Effect::Fail(Fault::Io));
    disk.add(fails.path(|path| path.starts_with("/weir/controller")));
    let channel = Channel::from_shared(format!("http://{}", standalone.addr())).unwrap().connect_lazy();
    let topic = Topic { name: "a".to_owned(), ..Topic::default() };
    let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
    let created = tokio::spawn(async move { TopicServiceClient::new(channel).create_topic(request).await });
    let reason = timeout(PATIENCE, standalone.over()).await.expect("the process goes on").unwrap();
    assert!(reason.to_string().starts_with("controller ended"), "{reason}");
    assert_eq!(reason.exit_code(), 1);
    created.abort();
    standalone.stop().await.unwrap_err();
}
