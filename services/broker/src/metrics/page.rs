//! docs/metrics.md, written from the catalog.

use super::catalog::CATALOG;

/// The page as it should be. `cargo run -p weir-broker --example metrics` prints it.
pub fn page() -> String {
    format!("{INTRODUCTION}{}{WHICH_PARTITION}", CATALOG.tables())
}

const INTRODUCTION: &str = "\
# Metrics

<!-- Written by `cargo run -p weir-broker --example metrics`; edit services/broker/src/metrics instead. -->

`GET /metrics` on the HTTP port (`http_listen`, 9348) answers in the text format of Prometheus, from the first moment of
a start on; `/healthz` says that the process lives, `/readyz` whether anybody should be sent here, and if not, why.

```yaml
scrape_configs:
  - job_name: weir
    static_configs: [{targets: [\"localhost:9348\"]}]
```

Labels have values that are known when Weir is built, or are ids of brokers: never topics, partitions, clients or addresses. So the answer is
as large with ten thousand partitions as with one, and gives no names away. [Which partition it is](#which-partition)
is asked of the server. A metric with labels has no lines before it has counted something, except
`weir_reads_failed_total`.

## Worth waking somebody
| what | why |
|---|---|
| `up == 0`, or `weir_ready == 0` for 5 minutes | nobody is served; `/readyz` says why |
| `weir_partitions_offline > 0` | their records cannot be written or read |
| `weir_partitions_unwritable > 0` for a minute | appends are refused: too few replicas are in sync |
| `weir_partitions_damaged > 0` or `increase(weir_reads_failed_total[10m]) > 0` | the disk does not give back what was written |
| `weir_disk_missing_bytes > 0` | appends are refused; [the broker is ready all the same](errors/DISK_FULL.md) |
| `weir_disk_available_bytes < 2 * weir_disk_reserved_bytes` | appends will be refused |
| `weir_disk_slow == 1` | its disk is ill or too busy; [others lead what they can](operations/states.md#slow-disk) |
| `histogram_quantile(0.99, rate(weir_append_seconds_bucket[5m])) > 1` | producers wait a second and more |
| `rate(weir_calls_total{code=~\"Internal\\|Unknown\"}[5m]) > 0` | a defect; the log has each with its request id |
";

const WHICH_PARTITION: &str = "
## Which partition?
Metrics say that something is wrong, commands say where. They ask the server itself, so they are as fresh as a scrape.

| the metrics say | ask | and look at |
|---|---|---|
| partitions are offline or damaged | `weir status` | it names them; `weir partition describe flights/3` says what is wrong, with file and offset |
| replicas are behind | `weir partition describe flights` | by how many records and bytes, and since when |
| acknowledgements are late | `weir partition describe flights -o wide` | LOG END ahead of END: written, not yet committed; ON DISK behind LOG END: waits for the disk. Again a second later: one that stands still is stuck |
| few partitions take most of the writes | `weir topic list`, then `weir topic describe flights` | RECORDS and SIZE beside those of the others; LAST APPEND |
| nothing is written | `weir topic describe flights` | LAST APPEND: since when |
| readers get nothing | `weir partition describe flights -o wide` | STABLE behind END: a transaction is open; START above where they are: records were deleted |
| the disk fills | `weir topic list` | SIZE and KEEPS |

Of thousands of partitions a program picks those to look at:

```sh
weir partition describe flights -o json | jq -c 'select(.logEndOffset != .highWatermark)'
```
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_page_is_the_one_that_the_code_writes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let written = super::page();
        let differs = page.lines().zip(written.lines()).find(|(page, written)| page != written);
        assert!(
            page == written,
            "docs/metrics.md is not up to date, first at {differs:?}: \
             cargo run -q -p weir-broker --example metrics > docs/metrics.md"
        );
    }
}
