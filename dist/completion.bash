# SPDX-License-Identifier: MIT
# Completion for bash. It asks the program itself, and so knows what that knows. -*- shell-script -*-

_kakuremichi_agent()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} help line words
	help=$("$1" --help 2>/dev/null) || return 0
	# --option=value comes as three words
	[[ $cur != = ]] || cur=
	[[ $prev != = ]] || prev=${COMP_WORDS[COMP_CWORD - 2]}
	COMPREPLY=()

	# what takes a value has a variable on the next line, or a default
	if [[ $prev == --* ]] && line=$(grep -E -A1 -- "^  $prev +" <<<"$help") &&
	   [[ $line =~ \]$'\n' || $line =~ $'\n'\ +[A-Z][A-Z0-9_]+$ ]]; then
		line=${line%$'\n'*}
		case $prev in
		*-file|*-dir|*-socket|--cgroup)
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return 0 ;;
		esac
		# "auto, on or off [auto]"; what is on or true by default is one of two
		if [[ $line =~ (([a-z]+, )*[a-z]+ or [a-z]+)( \[[a-z]+\])?$ ]]; then
			words=${BASH_REMATCH[1]//,/}
			words=${words/ or / }
		elif [[ $line =~ \[(true|false)\]$ ]]; then
			words='true false'
		elif [[ $line =~ \[(on|off)\]$ ]]; then
			words='on off'
		fi
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	elif ((COMP_CWORD == 1)); then
		words=$(sed -nE 's/^  ([a-z]+) .*/\1/p' <<<"$help")
		mapfile -t COMPREPLY < <(compgen -W "$words help --help --version" -- "$cur")
	elif [[ $cur == -* ]]; then
		words=$(sed -nE 's/^  (--[a-z-]+) .*/\1/p' <<<"$help")
		mapfile -t COMPREPLY < <(compgen -W "$words --json --help" -- "$cur" | sort -u)
	fi
}
complete -F _kakuremichi_agent kakuremichi-agent
