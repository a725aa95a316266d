# bash completion for kindred; made by: kindred completion bash
_kindred() {
    local cur prev word cmd="" opts files=""
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD - 1]}
    local commands="create index search pairs train rollback promote jobs status eval views embed export import encoders import-encoder export-encoder backup delete completion version help"
    local globals=" --url --collection --key-file --json --quiet --help --version"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case " $commands " in
        *" $word "*) cmd=$word; break ;;
        esac
    done
    case $cmd in
    "") opts="$globals $commands" ;;
    create) opts="$globals --encoder --dims --template --description --set" ;;
    index) opts="$globals --id --title --text --meta --id-prefix --no-create --pictures --documents --input-side --grey --folder-field --format --heading --errors --show"; files=1 ;;
    search) opts="$globals --k --id --image --like --unlike --filter --min-cosine --min-probability --exact --explain --full --tsv"; files=1 ;;
    pairs) opts="$globals --anchor --positive --group --anchor-id --positive-text --format --heading --errors --show"; files=1 ;;
    train) opts="$globals --pretext --mechanism --loss --label --update --layers --batch --micro-batch --epochs --optimizer --lr --schedule --temperature --queue --momentum --bank-sample --hard-negatives --head-layers --head-dims --view --seed --force --set --follow" ;;
    rollback) opts="$globals --no-wait" ;;
    promote) opts="$globals --no-wait" ;;
    jobs) opts="$globals --follow --cancel" ;;
    status) opts="$globals" ;;
    eval) opts="$globals --name --use --keep --set --each-compute --learn --rounds --train --limit --write --label --test-field --neighbours --vote-temperature"; files=1 ;;
    views) opts="$globals --output --n --seed --set"; files=1 ;;
    embed) opts="$globals --model --dimensions" ;;
    export) opts="$globals --output --vectors --no-pairs --no-items"; files=1 ;;
    import) opts="$globals --errors --show --no-create"; files=1 ;;
    encoders) opts="$globals --delete" ;;
    import-encoder) opts="$globals --name"; files=1 ;;
    export-encoder) opts="$globals --generation"; files=1 ;;
    backup) opts="$globals --output --list"; files=1 ;;
    delete) opts="$globals --yes --item" ;;
    completion) opts="$globals" ;;
    version) opts="$globals" ;;
    help) opts="$globals" ;;
    esac
    case $cmd in
    help) opts="$commands" ;;
    completion) opts="bash zsh fish" ;;
    esac
    case $prev in
    --*-file|--key-file|--errors|--output|-o) opts=""; files=1 ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$opts" -- "$cur")
    if [[ -n $files && $cur != -* ]]; then
        compopt -o filenames
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _kindred kindred
