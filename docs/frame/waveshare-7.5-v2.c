// Shows pictures on Waveshare's 7.5 inch e-paper V2 (black and white, 800 x 480) on a Raspberry Pi, by its HAT:
//
//   cc -O2 -o show-pictures waveshare-7.5-v2.c
//   mosquitto_sub -h board.local -t diffused/frame/output -N -F '%l %p' | ./show-pictures
//
// Each message comes with its length before it. It is the 48,000 bytes that the device publishes for `output = { panel
// = "waveshare-7.5-v2", format = "packed" }`: a pixel is a bit, the left one the highest, 1 is black. The program needs
// the kernel's own drivers and nothing else: SPI (`dtparam=spi=on`) and GPIO. Another SPI or GPIO device is named
// behind the program's name. The commands are those of the controller's data sheet (UC8179), the values of registers
// those that Waveshare's own program sets.

#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <linux/spi/spidev.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH = 800, HEIGHT = 480, BYTES = WIDTH / 8 * HEIGHT };
// The HAT's pins by their GPIO numbers, and their bits in a request: three that we set, one that we read.
enum { RESET = 1, DATA = 2, POWER = 4, BUSY = 1 };
static const uint32_t outputs[] = {17, 25, 18}, inputs[] = {24};
// What the kernel takes at once (`spidev.bufsiz`).
enum { CHUNK = 4096 };

static int spi, pins_out, pins_in;

static void fail(const char *what) {
    fprintf(stderr, "show-pictures: %s: %s\n", what, errno ? strerror(errno) : "not as it should be");
    exit(1);
}

static void wait_ms(unsigned milliseconds) { usleep(milliseconds * 1000); }

static int lines(const char *chip_name, const uint32_t *numbers, uint32_t count, uint64_t flags) {
    struct gpio_v2_line_request request = {.num_lines = count, .config.flags = flags, .consumer = "show-pictures"};
    memcpy(request.offsets, numbers, count * sizeof *numbers);
    int chip = open(chip_name, O_RDWR);
    if (chip < 0 || ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request) < 0) fail(chip_name);
    close(chip);
    return request.fd;
}

static void set(uint64_t pins, int high) {
    struct gpio_v2_line_values values = {.bits = high ? pins : 0, .mask = pins};
    if (ioctl(pins_out, GPIO_V2_LINE_SET_VALUES_IOCTL, &values) < 0) fail("a GPIO line");
}

static void transfer(const uint8_t *bytes, size_t count) {
    while (count > 0) {
        size_t part = count < CHUNK ? count : CHUNK;
        ssize_t sent = write(spi, bytes, part);
        if (sent <= 0) fail("SPI");
        bytes += sent, count -= (size_t)sent;
    }
}

// A command, told from its data by a line of its own.
static void command(uint8_t code, const uint8_t *data, size_t count) {
    set(DATA, 0);
    transfer(&code, 1);
    if (count > 0) set(DATA, 1);
    transfer(data, count);
}

#define COMMAND(code, ...) command(code, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

// The display is busy as long as its line is low: a picture takes some seconds, and more in the cold.
static void wait_idle(void) {
    struct gpio_v2_line_values values = {.mask = BUSY};
    for (int tenths = 0; tenths < 600; tenths++) {
        wait_ms(100);
        if (ioctl(pins_in, GPIO_V2_LINE_GET_VALUES_IOCTL, &values) < 0) fail("a GPIO line");
        if (values.bits & BUSY) return;
    }
    errno = ETIMEDOUT;
    fail("the display is busy for a minute; is it connected?");
}

static void wake(void) {
    set(POWER | RESET, 1);
    wait_ms(20);
    set(RESET, 0);
    wait_ms(2);
    set(RESET, 1);
    wait_ms(20);
    COMMAND(0x01, 0x07, 0x07, 0x3f, 0x3f);  // voltages: 20 V for the gates, 15 V for the pixels
    COMMAND(0x06, 0x17, 0x17, 0x28, 0x17);  // the booster's soft start
    command(0x04, NULL, 0);                 // power on
    wait_idle();
    COMMAND(0x00, 0x1f);                    // black and white, the display's own waveforms
    COMMAND(0x61, WIDTH >> 8, WIDTH & 0xff, HEIGHT >> 8, HEIGHT & 0xff);
    COMMAND(0x15, 0x00);                    // one SPI
    COMMAND(0x50, 0x10, 0x07);              // the border; 1 is black
    COMMAND(0x60, 0x22);                    // gaps between gates
}

static void show(const uint8_t *picture) {
    static uint8_t before[BYTES];
    for (size_t i = 0; i < BYTES; i++) before[i] = (uint8_t)~picture[i];
    command(0x10, before, BYTES);  // what was there: the opposite, so that every pixel is driven
    command(0x13, picture, BYTES);
    command(0x12, NULL, 0);  // refresh
    wait_idle();
}

// It keeps its picture, and nothing of its voltages harms it.
static void sleep_well(void) {
    COMMAND(0x50, 0xf7);
    command(0x02, NULL, 0);  // power off
    wait_idle();
    COMMAND(0x07, 0xa5);  // deep sleep, until the next reset
}

// The next picture of the pipe; what has another length is none of this display's, and passed over.
static int next(uint8_t *picture) {
    for (size_t length; scanf("%zu", &length) == 1 && getchar() == ' ';) {
        if (length == BYTES) return fread(picture, 1, BYTES, stdin) == BYTES;
        const char *advice = "is the device's output this panel's, as \"packed\"?";
        fprintf(stderr, "show-pictures: %zu bytes instead of %d: %s\n", length, BYTES, advice);
        while (length > 0 && getchar() != EOF) length--;
    }
    return 0;
}

int main(int count, char **words) {
    const char *spi_name = count > 1 ? words[1] : "/dev/spidev0.0", *chip = count > 2 ? words[2] : "/dev/gpiochip0";
    uint8_t mode = SPI_MODE_0;
    uint32_t speed = 4000000;
    spi = open(spi_name, O_RDWR);
    if (spi < 0 || ioctl(spi, SPI_IOC_WR_MODE, &mode) < 0) fail(spi_name);
    if (ioctl(spi, SPI_IOC_WR_MAX_SPEED_HZ, &speed) < 0) fail(spi_name);
    pins_out = lines(chip, outputs, 3, GPIO_V2_LINE_FLAG_OUTPUT);
    pins_in = lines(chip, inputs, 1, GPIO_V2_LINE_FLAG_INPUT);
    static uint8_t picture[BYTES];
    while (next(picture)) {
        wake();
        show(picture);
        sleep_well();
    }
    fprintf(stderr, "show-pictures: no more pictures come\n");
    return 0;
}
