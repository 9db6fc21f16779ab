# bash completion of jigdofs, as `jigdofs completion bash` prints it

_jigdofs_mounts() {
    local point type rest
    while IFS=' ' read -r _ point type rest; do
        [[ $type == fuse.jigdofs ]] && printf '%b\n' "${point//\\/\\0}"
    done </proc/self/mounts
}

_jigdofs_reply() { # WORD KIND [WORDS]
    local IFS=$'\n' word=$1
    case $2 in
        words) COMPREPLY+=($(IFS=$' \n'; compgen -W "$3" -- "$word")) ;;
        file) compopt -o filenames && COMPREPLY+=($(compgen -f -- "$word")) ;;
        directory) compopt -o filenames && COMPREPLY+=($(compgen -d -- "$word")) ;;
        user) COMPREPLY+=($(compgen -u -- "$word")) ;;
        group) COMPREPLY+=($(compgen -g -- "$word")) ;;
        mount)
            compopt -o filenames
            local point
            while IFS= read -r point; do
                [[ $point == "$word"* ]] && COMPREPLY+=("$point")
            done < <(_jigdofs_mounts)
            # the images below a mount point, once that is written in full
            [[ $word == */* && ${#COMPREPLY[@]} == 0 ]] && COMPREPLY+=($(compgen -f -- "$word"))
            ;;
    esac
}

_jigdofs() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options= kind= words= operands=()
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _jigdofs_reply "$word" words "cache completion config demo download info list-template loop ls make-image make-template md5 md5sum mi mount mt pm pma prefetch print-missing print-missing-all sc scan serve service sha256 sha256sum status umount unmount ver verify --help --version"
        return
    fi
    # --option=value comes as three words
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case ${COMP_WORDS[1]} in
        mount)
            options='-h --help --config --mirror --uri --image --scan --cache-dir --cache-max-size --cache-min-free --no-cache --connections --connect-timeout --stall-timeout --min-speed --read-timeout --readahead --prefetch --prefetch-list --record --bwlimit --contents -f --foreground --hand-over --log-file --metrics -v --verbose -o --allow-other --uid --gid --umask --max-background --read-ahead-kb'
            operands=('file:')
            case $before in
                --config) kind=file ;;
                --mirror|--uri) kind=text ;;
                --image) kind=words words='all' ;;
                --scan) kind=file ;;
                --cache-dir) kind=directory ;;
                --cache-max-size) kind=words words='off' ;;
                --cache-min-free) kind=text ;;
                --connections) kind=text ;;
                --connect-timeout) kind=text ;;
                --stall-timeout) kind=text ;;
                --min-speed) kind=text ;;
                --read-timeout) kind=text ;;
                --readahead) kind=text ;;
                --prefetch) kind=words words='none metadata all' ;;
                --prefetch-list) kind=file ;;
                --record) kind=file ;;
                --bwlimit) kind=words words='off' ;;
                --log-file) kind=file words='syslog' ;;
                --metrics) kind=text ;;
                -o) kind=text ;;
                --uid) kind=user ;;
                --gid) kind=group ;;
                --umask) kind=text ;;
                --max-background) kind=text ;;
                --read-ahead-kb) kind=text ;;
            esac
            ;;
        umount|unmount)
            options='-h --help -l --lazy'
            operands=('mount:')
            ;;
        loop)
            options='-h --help'
            operands=('mount:' 'directory:')
            ;;
        status)
            options='-h --help --json --watch --cells'
            operands=('mount:')
            case $before in
                --cells) kind=text ;;
            esac
            ;;
        prefetch)
            options='-h --help --all --metadata --path --range --bwlimit --json -q --quiet'
            operands=('mount:')
            case $before in
                --path) kind=text ;;
                --range) kind=text ;;
                --bwlimit) kind=text ;;
            esac
            ;;
        config)
            options='-h --help --origin --json --config'
            operands=('words:show check example' 'file:')
            case $before in
                --config) kind=file ;;
            esac
            ;;
        service)
            options='-h --help --config'
            operands=('words:attach detach')
            case $before in
                --config) kind=file ;;
            esac
            ;;
        serve)
            options='-h --help --listen -v --verbose --config --mirror --uri --image --scan --cache-dir --cache-max-size --cache-min-free --no-cache --connections --connect-timeout --stall-timeout --min-speed --read-timeout --readahead --prefetch --prefetch-list --record --bwlimit'
            operands=('file:')
            case $before in
                --listen) kind=text ;;
                --config) kind=file ;;
                --mirror|--uri) kind=text ;;
                --image) kind=words words='all' ;;
                --scan) kind=file ;;
                --cache-dir) kind=directory ;;
                --cache-max-size) kind=words words='off' ;;
                --cache-min-free) kind=text ;;
                --connections) kind=text ;;
                --connect-timeout) kind=text ;;
                --stall-timeout) kind=text ;;
                --min-speed) kind=text ;;
                --read-timeout) kind=text ;;
                --readahead) kind=text ;;
                --prefetch) kind=words words='none metadata all' ;;
                --prefetch-list) kind=file ;;
                --record) kind=file ;;
                --bwlimit) kind=words words='off' ;;
            esac
            ;;
        download)
            options='-h --help -o --output --into --update -f --force --keep-parts --json -q --quiet -v --verbose --config --mirror --uri --image --scan --cache-dir --cache-max-size --cache-min-free --no-cache --connections --connect-timeout --stall-timeout --min-speed'
            operands=('file:')
            case $before in
                -o|--output) kind=text ;;
                --into) kind=directory ;;
                --config) kind=file ;;
                --mirror|--uri) kind=text ;;
                --image) kind=words words='all' ;;
                --scan) kind=file ;;
                --cache-dir) kind=directory ;;
                --cache-max-size) kind=words words='off' ;;
                --cache-min-free) kind=text ;;
                --connections) kind=text ;;
                --connect-timeout) kind=text ;;
                --stall-timeout) kind=text ;;
                --min-speed) kind=text ;;
            esac
            ;;
        cache)
            options='-h --help --json --config --cache-dir --cache-max-size --cache-min-free --no-cache --max-size --older-than --dry-run --keep -q --quiet -y --yes --pinned'
            operands=('words:ls du gc verify pin unpin clear' 'file:')
            case $before in
                --config) kind=file ;;
                --cache-dir) kind=directory ;;
                --cache-max-size) kind=words words='off' ;;
                --cache-min-free) kind=text ;;
                --max-size) kind=text ;;
                --older-than) kind=text ;;
            esac
            ;;
        info)
            options='-h --help --json --check-urls --config --mirror --uri --image --cache-dir --cache-max-size --cache-min-free --no-cache --connections --connect-timeout --stall-timeout --min-speed'
            operands=('file:')
            case $before in
                --config) kind=file ;;
                --mirror|--uri) kind=text ;;
                --image) kind=words words='all' ;;
                --cache-dir) kind=directory ;;
                --cache-max-size) kind=words words='off' ;;
                --cache-min-free) kind=text ;;
                --connections) kind=text ;;
                --connect-timeout) kind=text ;;
                --stall-timeout) kind=text ;;
                --min-speed) kind=text ;;
            esac
            ;;
        make-template|mt)
            options='-h --help -i --image -j --jigdo -t --template -T --files-from -r --report -f --force --label --uri -c --cache --no-cache --merge --match-exec -C --checksum-algorithm --min-length --no-image-section --no-servers-section --bzip2 -1 -9 --json --check-urls'
            operands=('file:')
            case $before in
                -i|--image) kind=file ;;
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
                -T|--files-from) kind=file ;;
                -r|--report) kind=words words='default noprogress quiet grep' ;;
                --label) kind=text ;;
                --uri) kind=text ;;
                -c|--cache) kind=file ;;
                --merge) kind=file ;;
                --match-exec) kind=text ;;
                -C|--checksum-algorithm) kind=words words='md5 sha256' ;;
                --min-length) kind=text ;;
            esac
            ;;
        make-image|mi)
            options='-h --help -i --image -j --jigdo -t --template -T --files-from -r --report -f --force -c --cache --no-cache'
            operands=('file:')
            case $before in
                -i|--image) kind=file ;;
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
                -T|--files-from) kind=file ;;
                -r|--report) kind=words words='default noprogress quiet grep' ;;
                -c|--cache) kind=file ;;
            esac
            ;;
        scan|sc)
            options='-h --help -j --jigdo -t --template -T --files-from -r --report -c --cache --no-cache'
            operands=('file:')
            case $before in
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
                -T|--files-from) kind=file ;;
                -r|--report) kind=words words='default noprogress quiet grep' ;;
                -c|--cache) kind=file ;;
            esac
            ;;
        list-template|ls)
            options='-h --help -i --image -j --jigdo -t --template --hex'
            operands=('file:')
            case $before in
                -i|--image) kind=file ;;
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
            esac
            ;;
        print-missing|pm)
            options='-h --help -i --image -j --jigdo -t --template --uri'
            operands=()
            case $before in
                -i|--image) kind=file ;;
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
                --uri) kind=text ;;
            esac
            ;;
        print-missing-all|pma)
            options='-h --help -i --image -j --jigdo -t --template --uri'
            operands=()
            case $before in
                -i|--image) kind=file ;;
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
                --uri) kind=text ;;
            esac
            ;;
        verify|ver)
            options='-h --help -i --image -j --jigdo -t --template'
            operands=()
            case $before in
                -i|--image) kind=file ;;
                -j|--jigdo) kind=file ;;
                -t|--template) kind=file ;;
            esac
            ;;
        md5sum|md5)
            options='-h --help -T --files-from --hex'
            operands=('file:')
            case $before in
                -T|--files-from) kind=file ;;
            esac
            ;;
        sha256sum|sha256)
            options='-h --help -T --files-from --hex'
            operands=('file:')
            case $before in
                -T|--files-from) kind=file ;;
            esac
            ;;
        completion)
            options='-h --help'
            operands=('words:bash zsh fish')
            ;;
        demo)
            options='-h --help'
            operands=()
            ;;
        *) return ;;
    esac
    if [[ $kind ]]; then
        _jigdofs_reply "$word" $kind "$words"
    elif [[ $word == -* ]]; then
        _jigdofs_reply "$word" words "$options"
    else
        local operand
        for operand in "${operands[@]}"; do
            _jigdofs_reply "$word" ${operand%%:*} "${operand#*:}"
        done
    fi
}

complete -F _jigdofs jigdofs
