/** Shells whose completion is there. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** The hidden command that the scripts ask. It prints `value<TAB>description` lines, and `:files` or `:folders` first. */
export const ASKED = '__complete';

// Words are cut at spaces alone: bash itself would cut section.key=value at the =.
const BASH = `# Completion of mbridge for bash: source <(mbridge completion bash)
_mbridge_complete() {
  local line=\${COMP_LINE:0:COMP_POINT} words=() answer value current path rest IFS=$' \\t\\n'
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[-1]}
  COMPREPLY=()
  # What the shell has cut off already is not to be given again.
  path=\${current#*=}
  rest=\${current##*[=:]}
  local cut=\${current%"$rest"}
  answer=$("\${words[0]/#\\~/$HOME}" ${ASKED} -- "\${words[@]:1}" 2>/dev/null) || return 0
  while IFS=$'\\t' read -r value _; do
    case $value in
      :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$path") ;;
      :folders) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$path") ;;
      ?*) COMPREPLY+=("\${value#"$cut"}") ;;
    esac
  done <<<"$answer"
  [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *= ]] && compopt -o nospace
  return 0
}
complete -F _mbridge_complete mbridge
`;

const ZSH = `#compdef mbridge
# Completion of mbridge for zsh: source <(mbridge completion zsh), after compinit
_mbridge() {
  local line value
  local -a plain open shown_plain shown_open
  for line in "\${(@f)$("\${words[1]}" ${ASKED} -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    value=\${line%%$'\\t'*}
    case $value in
      '') ;;
      :files) compset -P '*='; _files ;;
      :folders) compset -P '*='; _files -/ ;;
      *=) open+=("$value"); shown_open+=("\${line/$'\\t'/  }") ;;
      *) plain+=("$value"); shown_plain+=("\${line/$'\\t'/  }") ;;
    esac
  done
  (( \${#plain} )) && compadd -l -d shown_plain -a plain
  (( \${#open} )) && compadd -l -S '' -d shown_open -a open
  return 0
}
compdef _mbridge mbridge
`;

const FISH = `# Completion of mbridge for fish: mbridge completion fish | source
function __mbridge_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] ${ASKED} -- $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case :files
                set -l prefix (string match -r '^[^=]*=' -- "$current")
                for path in (__fish_complete_path (string replace -r '^[^=]*=' '' -- "$current"))
                    printf '%s%s\\n' "$prefix" $path
                end
            case :folders
                set -l prefix (string match -r '^[^=]*=' -- "$current")
                for path in (__fish_complete_directories (string replace -r '^[^=]*=' '' -- "$current") '')
                    printf '%s%s\\n' "$prefix" $path
                end
            case '*'
                printf '%s\\n' $line
        end
    end
end
complete -c mbridge -f -a '(__mbridge_complete)'
`;

/** What a shell reads once, so that it completes the command. */
export const SCRIPTS: Readonly<Record<Shell, string>> = { bash: BASH, zsh: ZSH, fish: FISH };
