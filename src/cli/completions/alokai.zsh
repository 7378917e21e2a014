#compdef alokai
# Completes the words of alokai in zsh. Works in a file `_alokai` of `fpath`, and with `source`.
_alokai() {
    local -a typed found shown
    local line
    typed=("${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}")
    while IFS= read -r line; do
        found+=("${line%%$'\t'*}")
        shown+=("${line/$'\t'/  }")
    done < <(command "${(Q)words[1]}" __complete zsh -- "${typed[@]}" 2>/dev/null </dev/null)
    local -a words_found words_shown open_found open_shown
    local index
    for index in {1..$#found}; do
        if [[ $found[index] == */ ]]; then
            open_found+=("$found[index]") open_shown+=("$shown[index]")
        elif [[ -n $found[index] ]]; then
            words_found+=("$found[index]") words_shown+=("$shown[index]")
        fi
    done
    # The words to the left of the cursor are complete already; zsh quotes what it inserts.
    (( $#words_found )) && compadd -l -d words_shown -a words_found
    # A folder is continued.
    (( $#open_found )) && compadd -l -S '' -d open_shown -a open_found
    (( $#found ))
}
if [[ ${funcstack[1]-} == _alokai ]]; then
    _alokai "$@"
else
    compdef _alokai alokai
fi
