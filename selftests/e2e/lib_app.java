// SPDX-License-Identifier: MIT
// A Java server: the JDK's own. See lib_app.py. Run as source: `java lib_app.java PORT`.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.concurrent.Executors;

class Main {
	public static void main(String[] args) throws IOException {
		int port = Integer.parseInt(args[0]);
		HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);

		server.createContext("/", Main::file);
		server.createContext("/up", Main::up);
		server.setExecutor(Executors.newFixedThreadPool(8));
		server.start();
	}

	static void file(HttpExchange exchange) throws IOException {
		answer(exchange, Files.readAllBytes(Path.of("/files", exchange.getRequestURI().getPath())));
	}

	static void up(HttpExchange exchange) throws IOException {
		MessageDigest digest;
		byte[] piece = new byte[65536];

		try {
			digest = MessageDigest.getInstance("SHA-256");
		} catch (java.security.NoSuchAlgorithmException e) {
			throw new IOException(e);
		}
		try (InputStream in = exchange.getRequestBody()) {
			for (int n; (n = in.read(piece)) >= 0;)
				digest.update(piece, 0, n);
		}
		answer(exchange, HexFormat.of().formatHex(digest.digest()).getBytes(StandardCharsets.UTF_8));
	}

	static void answer(HttpExchange exchange, byte[] body) throws IOException {
		exchange.sendResponseHeaders(200, body.length);
		try (OutputStream out = exchange.getResponseBody()) {
			out.write(body);
		}
	}
}
