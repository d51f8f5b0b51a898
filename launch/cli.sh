# shellcheck shell=bash
# Flags and dry runs of the scripts beside it; source this.
# For: on_slice.sh, install_on_slice.sh, queued_resource.sh, gke/submit.sh.
# Nothing runs on its own.

declare -A flag=() # value by name; a switch is "" or "yes"
command_words=()   # what stands behind --

# Exit statuses after which another start is of no use: errors.FINAL of the
# package, and those of a shell that finds no such command (126, 127).
final_statuses=(2 3 4 126 127 130)

is_final() { [[ " ${final_statuses[*]} " == *" $1 "* ]]; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# parse "NAME ..." "SWITCH ..." "$@": fills `flag` and `command_words`; calls
# `usage` for --help.
parse() {
  local names=" $1 " switches=" $2 " word name
  shift 2
  while (($#)); do
    word="$1"
    shift
    case "$word" in
      --help) usage && exit 0 ;;
      --) command_words=("$@") && return ;;
      --*=*)
        name="${word%%=*}" name="${name#--}"
        [[ "$names" == *" $name "* ]] ||
          fail "unknown flag --$name: --help lists them"
        flag[$name]="${word#*=}"
        ;;
      --*)
        name="${word#--}"
        [[ "$names" != *" $name "* ]] || fail "--$name needs a value: --$name=..."
        [[ "$switches" == *" $name "* ]] ||
          fail "unknown flag --$name: --help lists them"
        flag[$name]=yes
        ;;
      *) fail "unexpected argument '$word': flags are --name=value, the" \
        "command stands behind --" ;;
    esac
  done
}

# check NAME REGEX WHAT: --NAME is there and matches the whole REGEX.
check() {
  [[ -n "${flag[$1]:-}" ]] || fail "--$1 is missing: $3"
  [[ "${flag[$1]}" =~ ^($2)$ ]] || fail "--$1=${flag[$1]}: $3"
}

# check_count NAME LEAST WHAT: a decimal number. Bash reads 08 as octal, and
# counts beyond 2^63 from the other end.
check_count() {
  check "$1" '0|[1-9][0-9]{0,5}' "$3 below 1000000, without zeros before it"
  ((flag[$1] >= $2)) || fail "--$1=${flag[$1]}: $3, at least $2"
}

# Names that Google Cloud and Kubernetes allow.
check_name() {
  check "$1" '[a-z]([a-z0-9-]{0,60}[a-z0-9])?' \
    "$2, of lower-case letters, digits and -"
}

check_zone() {
  check zone '[a-z]+-[a-z]+[0-9]+-[a-z]' "a zone, for instance us-east5-a"
}

# Hosts get a commit: what is not in one would be left out.
check_committed() {
  if [[ -n "$(git status --porcelain --untracked-files=no)" ]]; then
    fail "files differ from the last commit, which is what is installed:" \
      "commit them, or put them away with git stash"
  fi
}

need_command() {
  ((${#command_words[@]})) ||
    fail "no command: write it behind --, for instance -- python -m ..."
}

# The command as one word of a shell, with every argument kept whole.
quoted_command() { printf '%q ' "${command_words[@]}" | sed 's/ $//'; }

# run WORDS...: runs, or with --dry_run prints what it would run.
run() {
  if [[ -n "${flag[dry_run]:-}" ]]; then
    printf '%q ' "$@" | sed 's/ $/\n/'
  else
    "$@"
  fi
}

# Chips of a topology such as v5p:8x8x8, and what a host of it has.
chips_of() {
  local sizes="${1#*:}" chips=1 size
  for size in ${sizes//x/ }; do chips=$((chips * size)); done
  echo "$chips"
}

check_topology() { # PATTERN OF FAMILIES, HINT
  # No slice has a side of three digits.
  check topology "($1):[1-9][0-9]?x[1-9][0-9]?(x[1-9][0-9]?)?" "$2"
  case "${flag[topology]}" in
    v6e:*x*x*) fail "--topology=${flag[topology]}: v6e has two dims, v6e:16x16" ;;
    v6e:*) ;;
    *:*x*x*) ;;
    *) fail "--topology=${flag[topology]}: ${flag[topology]%%:*} has three" \
      "dims, for instance ${flag[topology]%%:*}:4x4x4" ;;
  esac
}
