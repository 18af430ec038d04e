//! `weir completion`: what a shell needs to complete commands, flags, and the names of topics.

use clap::{Args, Command, ValueHint};
use clap_complete::{Shell, generate};

use crate::error::Result;
use crate::session::Session;

/// Completion for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Add to ~/.bashrc:  source <(weir completion bash)
Names of topics are asked of the server, for a tenth of a second (bash, zsh, fish).

Examples:
  $ weir completion bash
  $ weir completion zsh
  $ weir completion fish")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

/// Where a topic stands on the command line: after which words, and as which argument.
const TOPICS: &[(&[&str], &str)] = &[
    (&["produce"], "what"),
    (&["consume"], "what"),
    (&["topic", "describe"], "names"),
    (&["topic", "set"], "name"),
    (&["topic", "trim"], "what"),
    (&["topic", "delete"], "names"),
    (&["partition", "describe"], "what"),
];

// What is added to the generated scripts: who is asked is the server that the command line names, else everybody's.
const BASH: &str = r#"
_weir_topics() {
    _weir "$@"
    local names word words previous= server=() line="${COMP_LINE:0:COMP_POINT}"
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] || unset 'words[-1]'
    for word in "${words[@]}"; do
        case $previous in -s | --server | -c | --context) server+=("$previous" "$word") ;; esac
        previous=$word
    done
    [[ $2 == -* || $previous == -* ]] && return
    case " ${words[*]} " in
        WORDS) names=($(compgen -W "$("$1" "${server[@]}" topic list -o name --timeout 100ms 2> /dev/null)" -- "$2")) ;;
    esac
    ((${#names[@]})) && COMPREPLY=("${names[@]}")
}
complete -F _weir_topics -o bashdefault -o default weir
"#;
const ZSH: &str = r#"
_weir_topics() {
    local -a names server words=(${(z)LBUFFER})
    local i
    for ((i = 2; i < $#words; i++)); do
        case $words[i] in -s | --server | -c | --context) server+=($words[i] $words[i+1]) ;; esac
    done
    names=(${(f)"$($words[1] $server topic list -o name --timeout 100ms 2> /dev/null)"})
    compadd -a names
}
"#;
const FISH: &str = r#"
function __weir_topics
    set -l words (commandline -opc)
    set -l server
    for i in (seq 2 (count $words))
        contains -- $words[$i] -s --server -c --context; and set -a server $words[$i..(math $i + 1)]
    end
    $words[1] $server topic list -o name --timeout 100ms 2>/dev/null
end
"#;

impl Completion {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let mut command = crate::args::command();
        if self.shell == Shell::Zsh {
            command =
                TOPICS.iter().fold(command, |command, (words, argument)| marked(command, words, argument));
        }
        let mut script = Vec::new();
        generate(self.shell, &mut command, "weir", &mut script);
        session.print_bytes(with_topics(self.shell, &String::from_utf8_lossy(&script)).as_bytes())
    }
}

/// With a hint at an argument that nothing else here has, for what is then written in its place.
fn marked(command: Command, words: &[&'static str], argument: &'static str) -> Command {
    match words {
        [] => command.mut_args(|arg| match arg.get_id() == argument {
            true => arg.value_hint(ValueHint::Username),
            false => arg,
        }),
        [word, rest @ ..] => command.mut_subcommands(|below| match below.get_name() == *word {
            true => marked(below, rest, argument),
            false => below,
        }),
    }
}

/// A generated script that completes topics too.
fn with_topics(shell: Shell, script: &str) -> String {
    let lines = TOPICS.iter().map(|(words, _)| words);
    match shell {
        Shell::Bash => {
            let words: Vec<String> = lines.map(|words| format!("*\" {} \"*", words.join(" "))).collect();
            format!("{script}{}", BASH.replace("WORDS", &words.join(" | ")))
        }
        Shell::Zsh => {
            let script = script.replace(":_users", ":_weir_topics");
            script.replacen("#compdef weir\n", &format!("#compdef weir\n{ZSH}"), 1)
        }
        Shell::Fish => {
            let each = lines.map(|words| {
                let words = words.join("; and __fish_seen_subcommand_from ");
                let after = format!("-n \"__fish_weir_using_subcommand {words}\"");
                format!("complete -c weir {after} -f -a \"(__weir_topics)\"\n")
            });
            format!("{script}{FISH}{}", each.collect::<String>())
        }
        _ => script.to_owned(),
    }
}
