//! The fenced code blocks of a Markdown page.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first word after the fence; empty if there is none.
    pub language: String,
    /// The line of the opening fence, from 1.
    pub line: usize,
    /// What is between the fences, without their indentation.
    pub text: String,
    /// Why it is not to be run, if the line before says so.
    pub not_run: Option<String>,
}

/// All fenced blocks of a page, in order. A block that is never closed ends with the page.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut not_run = None;
    while let Some((number, line)) = lines.next() {
        let Some((indent, fence, language)) = opening(line) else {
            if !line.trim().is_empty() {
                not_run = reason(line);
            }
            continue;
        };
        let mut text = String::new();
        for (_, line) in lines.by_ref() {
            if line.trim().starts_with(fence) && line.trim().trim_matches('`').is_empty() {
                break;
            }
            text.push_str(line.strip_prefix(indent).unwrap_or(line));
            text.push('\n');
        }
        blocks.push(Block { language: language.to_owned(), line: number + 1, text, not_run: not_run.take() });
    }
    blocks
}

/// The targets of links, each with its line, from 1; code blocks and code spans are left out.
#[must_use]
pub fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence = None;
    for (number, line) in page.lines().enumerate() {
        match (opening(line), fence) {
            (Some((_, opened, _)), None) => fence = Some(opened),
            (_, Some(open)) if line.trim().starts_with(open) => fence = None,
            (_, Some(_)) => {}
            (None, None) => {
                let prose: String = line.split('`').step_by(2).collect();
                let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
                found.extend(targets.map(|(target, _)| (number + 1, target.to_owned())));
            }
        }
    }
    found
}

/// The indentation, the fence and the language of a line that opens a block.
fn opening(line: &str) -> Option<(&str, &str, &str)> {
    let rest = line.trim_start();
    let indent = line.split_at(line.len() - rest.len()).0;
    let after = rest.trim_start_matches('`');
    let fence = rest.split_at(rest.len() - after.len()).0;
    let language = after.split_whitespace().next().unwrap_or_default();
    (fence.len() >= 3 && !after.contains('`')).then_some((indent, fence, language))
}

fn reason(line: &str) -> Option<String> {
    let why = line.trim().strip_prefix("<!-- not run:")?.strip_suffix("-->")?;
    Some(why.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_a_language_a_line_and_their_text() {
        let page = "# Page\n\n```sh\necho 1\n\necho 2\n```\ntext with `ticks` and ```not a fence```\n  ```\n  plain\n    more\n  ```\n";
        let found = blocks(page);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].language.as_str(), found[0].line), ("sh", 3));
        assert_eq!(found[0].text, "echo 1\n\necho 2\n");
        assert_eq!((found[1].language.as_str(), found[1].line), ("", 9));
        assert_eq!(found[1].text, "plain\n  more\n");
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one() {
        let found = blocks("````md\n```sh\nx\n```\n````\n```py\ny\n");
        assert_eq!(found[0].text, "```sh\nx\n```\n");
        assert_eq!((found[1].language.as_str(), found[1].text.as_str()), ("py", "y\n"));
    }

    #[test]
    fn links_are_found_in_prose_only() {
        let page = "[a](x.md) and [`b`](y.md#z)\n`[c](no)`\n```sh\n[d](no)\n```\n[e](last)\n";
        let found = [(1, "x.md"), (1, "y.md#z"), (6, "last")];
        assert_eq!(links(page), found.map(|(line, target)| (line, target.to_owned())));
    }

    #[test]
    fn a_reason_counts_for_the_next_block_only() {
        let page = "<!-- not run: needs a browser -->\n\n```sh\na\n```\n```sh\nb\n```\n<!-- not run: x -->\ntext\n```sh\nc\n```\n";
        let reasons: Vec<_> = blocks(page).into_iter().map(|block| block.not_run).collect();
        assert_eq!(reasons, [Some("needs a browser".to_owned()), None, None]);
    }
}
