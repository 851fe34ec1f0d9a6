# shellcheck shell=sh
# picture NAME: arguments of `generate` and of `submit`, for what `run` paints on this machine and `trial` on the board.
picture() {
    case $1 in
        short) echo "house --width 64 --height 64 --steps 2 --seed 7" ;;
        long) echo "moon --width 64 --height 64 --steps 40 --seed 8" ;;
        queued) echo "boat --width 64 --height 64 --steps 2 --seed 9" ;;
    esac
}
