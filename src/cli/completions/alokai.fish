# Completes the words of alokai in fish, which quotes what it inserts.
function __alokai_candidates
    set -l typed (commandline --current-process --tokenize --cut-at-cursor)
    command $typed[1] __complete fish -- $typed (commandline --current-token --cut-at-cursor) 2>/dev/null </dev/null
end
complete --command alokai --no-files --keep-order --arguments '(__alokai_candidates)'
