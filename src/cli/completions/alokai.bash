# Completes the words of alokai in bash.
_alokai() {
    local candidate
    COMPREPLY=()
    # No word list and no glob: a candidate may contain spaces and brackets.
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(command "$1" __complete bash -- "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null </dev/null)
    # A folder or a flag is continued.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _alokai alokai
