import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.Random;

/** Keeps values in the heap. A request is the number of a key; the answer has the values of so many keys from there. */
public class Service {
    public static void main(String[] words) throws Exception {
        int keys = Integer.parseInt(words[1]);
        int size = Integer.parseInt(words[2]);
        int atOnce = Integer.parseInt(words[3]);
        int stride = Integer.parseInt(words[4]);
        int used = Integer.parseInt(words[5]);
        byte[][] values = new byte[keys][];
        Random random = new Random(1);
        byte[] half = new byte[size / 2];
        for (int key = 0; key < keys; key++) {
            // Half of it compresses.
            random.nextBytes(half);
            values[key] = new byte[size];
            System.arraycopy(half, 0, values[key], 0, half.length);
        }
        try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            server.bind(UnixDomainSocketAddress.of(words[0]));
            while (true) {
                try (SocketChannel client = server.accept()) {
                    ByteBuffer request = ByteBuffer.allocate(4);
                    while (client.read(request) >= 0) {
                        if (request.hasRemaining()) {
                            continue;
                        }
                        int key = request.flip().getInt();
                        request.clear();
                        // Garbage, as services make it.
                        ByteBuffer answer = ByteBuffer.allocate(atOnce * size);
                        for (int count = 0; count < atOnce; count++) {
                            answer.put(values[key]);
                            key = (key + stride) % used;
                        }
                        answer.flip();
                        while (answer.hasRemaining()) {
                            client.write(answer);
                        }
                    }
                }
            }
        }
    }
}
