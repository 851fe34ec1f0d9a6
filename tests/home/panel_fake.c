// A display that is not there: linked with docs/frame/waveshare-7.5-v2.c by `-Wl,--wrap=…`, it stands in for the
// kernel's SPI and GPIO and writes what reaches the display to stdout, `C 13` for a command, `D` and its bytes for
// data. It ends the program where a display would misunderstand it: a command while it is busy, or while it is off or
// asleep.

#include <linux/gpio.h>
#include <linux/spi/spidev.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPI = 100, CHIP, OUTPUTS, INPUTS };
// The lines by their GPIO numbers; which bit each is, the program decides.
static uint32_t offsets[8];
static uint64_t levels;
static int awake, busy, is_data, falls_asleep;

int __wrap_open(const char *name, int flags, ...) {
    (void)flags;
    return strcmp(name, "/dev/spidev0.0") == 0 ? SPI : strcmp(name, "/dev/gpiochip0") == 0 ? CHIP : -1;
}

int __wrap_close(int file) { return file == CHIP ? 0 : -1; }

int __wrap_usleep(unsigned microseconds) {
    (void)microseconds;
    return 0;
}

static void broken(const char *what) {
    fflush(stdout);
    fprintf(stderr, "panel_fake: %s\n", what);
    exit(9);
}

static int level(uint32_t gpio) {
    for (int i = 0; i < 8; i++)
        if (offsets[i] == gpio) return (levels >> i) & 1;
    broken("a line that was not asked for");
    return 0;
}

static int set_levels(const struct gpio_v2_line_values *values) {
    int was = level(17);
    levels = (levels & ~values->mask) | (values->bits & values->mask);
    // The end of a reset wakes it.
    awake |= !was && level(17) && level(18);
    return 0;
}

int __wrap_ioctl(int file, unsigned long request, ...) {
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (file == SPI && request == SPI_IOC_WR_MODE) return *(uint8_t *)argument == SPI_MODE_0 ? 0 : -1;
    if (file == SPI && request == SPI_IOC_WR_MAX_SPEED_HZ) return *(uint32_t *)argument <= 20000000 ? 0 : -1;
    if (file == CHIP && request == GPIO_V2_GET_LINE_IOCTL) {
        struct gpio_v2_line_request *lines = argument;
        int is_output = lines->config.flags == GPIO_V2_LINE_FLAG_OUTPUT;
        if (is_output) memcpy(offsets, lines->offsets, lines->num_lines * sizeof *offsets);
        else if (lines->num_lines != 1 || lines->offsets[0] != 24) return -1;
        lines->fd = is_output ? OUTPUTS : INPUTS;
        return 0;
    }
    if (file == OUTPUTS && request == GPIO_V2_LINE_SET_VALUES_IOCTL) return set_levels(argument);
    if (file == INPUTS && request == GPIO_V2_LINE_GET_VALUES_IOCTL) {
        busy -= busy > 0;
        ((struct gpio_v2_line_values *)argument)->bits = busy == 0;
        return 0;
    }
    return -1;
}

ssize_t __wrap_write(int file, const void *bytes, size_t count) {
    const uint8_t *byte = bytes;
    if (file != SPI || count > 4096) return -1;
    if (!level(18) || !level(17) || !awake) broken("the display is off, or asleep");
    if (busy) broken("the display is busy");
    if (level(25)) {
        if (!is_data) printf("D");
        for (size_t i = 0; i < count; i++) printf(" %02x", byte[i]);
        is_data = 1;
        awake = !(falls_asleep && *byte == 0xa5);
        return (ssize_t)count;
    }
    if (count != 1) broken("a command has one byte");
    printf("%sC %02x\n", is_data ? "\n" : "", *byte);
    is_data = 0;
    falls_asleep = *byte == 0x07;
    // Power, refresh and power off take their time.
    busy = *byte == 0x04 || *byte == 0x12 || *byte == 0x02 ? 5 : 0;
    return 1;
}

__attribute__((destructor)) static void end(void) { printf("\n"); }
