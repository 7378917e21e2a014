# Completes the words of alokai in PowerShell 7.3 or newer.
Register-ArgumentCompleter -Native -CommandName alokai -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    # The text of words is taken from the syntax tree: nothing that was typed is evaluated.
    $words = @($commandAst.CommandElements |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition -or $_.Extent.StartOffset -lt $cursorPosition } |
        ForEach-Object {
            if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value }
            else { $_.Extent.Text }
        })
    if ($wordToComplete -eq '') { $words += '' }
    & $words[0] __complete powershell -- @words 2>$null | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        $text = $value
        if ($value -notmatch '^[\w\-./:=,+]+$') { $text = "'" + $value.Replace("'", "''") + "'" }
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($text, $value, 'ParameterValue', $help)
    }
}
