// Runs an example of the documentation against a whole Weir: the real one, in this process, on a disk in memory.
fn serve(
    example: fn(
        String,
    ) -> std::pin::Pin<Box<dyn std::future::Future<Output = Result<(), weir_client::Error>>>>,
) {
    use std::sync::Arc;
    use weir_runtime::{Executors, ExecutorsConfig, RealOs};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let os = Arc::new(RealOs::with_disk(Arc::new(weir_io::MemDisk::new(1)), 4).unwrap());
        let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
        let config = weir_config::Loader::new()
            .flag("--data-dir", "/example")
            .flag("--listen", "127.0.0.1:0")
            .flag("--http-listen", "127.0.0.1:0")
            .flag("--controller-listen", "127.0.0.1:0")
            .load::<weir_config::Standalone>()
            .unwrap()
            .config;
        let weir = weir_standalone::Standalone::start(os, &executors, &config).await.unwrap();
        example(weir.addr().to_string()).await.unwrap();
        weir.stop().await.unwrap();
    });
}
